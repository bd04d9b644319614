"""Cuts channels out of a run's network, and writes what is left as the first checkpoint of another run."""

import jax
import numpy as np

from jaxnets.compress.begin import Beginning
from jaxnets.compress.choose import choose
from jaxnets.compress.coupled import couple, widths_of
from jaxnets.compress.importance import importance, make_gates
from jaxnets.config import Config
from jaxnets.errors import UserError
from jaxnets.models.describe import size
from jaxnets.models.registry import FAMILIES, field_names
from jaxnets.run.directory import RunDirectory
from jaxnets.soup.statistics import make_statistics, with_statistics
from jaxnets.train.display import Display


def check_family(name: str) -> None:
    """Refuses a model whose family has no networks of other widths.

    Raises:
        UserError: that names those that have.
    """
    if "layer_widths" in field_names(name):
        return
    able = [family.network.__name__ for family in FAMILIES if "layer_widths" in field_names(next(iter(family.entries)))]
    raise UserError(
        f"channels can be cut out of {' and '.join(able)}, and {name} is neither: prune single weights "
        f"(--method magnitude), or train a smaller model of its family"
    )


def cut(config: Config, run: RunDirectory, display: Display) -> None:
    """Writes config.json, model.json and the checkpoint of step 0 of a run that a training then goes on with.

    The channels go that matter least for what they cost (`importance`, `choose`). What is left computes what the whole
    network would with zeros in their place; the statistics of its norms are then taken anew.

    Raises:
        UserError: if the network's channels cannot be cut so far, or the data cannot be read.
    """
    check_family(config.model.name)
    begins = Beginning(config, run)
    whole, variables, seen = begins.setup.built.model, begins.variables, begins.setup.data.preprocess

    coupling = couple(whole, variables, seen.height, seen.width, seen.channels)
    choose(coupling, np.ones(coupling.count), config.compress.keep)  # what is out of reach is refused at once
    gates = jax.jit(make_gates(whole, seen, begins.setup.built.recipe, seed=config.seed))
    matters = importance(coupling, begins.placed(variables), gates, begins.batches())
    kept = choose(coupling, matters, config.compress.keep)

    smaller = coupling.cut(variables, kept)
    begins.with_fields({"layer_widths": widths_of(smaller)})
    built = begins.setup.built
    statistics = make_statistics(built.model, seen, built.recipe, seed=config.seed)
    smaller = with_statistics(begins.placed(smaller), jax.jit(statistics), begins.batches())

    before, after = (size(model, seen.height, seen.width, seen.channels) for model in (whole, built.model))
    display.say(
        f"channels: {after.multiply_adds / before.multiply_adds:.1%} of the multiply-adds are left "
        f"({after.multiply_adds:,} of {before.multiply_adds:,}), and {after.parameters / before.parameters:.1%} of the "
        f"parameters ({after.parameters:,} of {before.parameters:,})"
    )
    compressed = {
        "method": "channels",
        "keep": config.compress.keep,
        "run": config.model.pretrained,
        "parameters": {"before": before.parameters, "after": after.parameters},
        "multiply_adds": {"before": before.multiply_adds, "after": after.multiply_adds},
    }
    begins.write(smaller, compressed, display)
