"""The weights that training starts from: those of another run, or of elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.config import Config
from jaxnets.errors import UserError
from jaxnets.models.family import Variables
from jaxnets.preprocess import Preprocess
from jaxnets.pretrained.convert import adapt
from jaxnets.pretrained.load import open_pretrained
from jaxnets.run.checkpoints import choose, read_variables
from jaxnets.run.directory import open_run
from jaxnets.run.resolve import resolve
from jaxnets.train.mesh import put
from jaxnets.train.step import TrainState


@dataclass(frozen=True, kw_only=True)
class Start:
    fields: Mapping[str, Any]  # of the model, that its config may replace; JSON values
    preprocess: Preprocess | None
    variables: Variables

    def into(self, state: TrainState, model: Any, channels: int, seed: int) -> TrainState:
        """Returns a fresh state with these weights, their head and stem adapted to the model and its images.

        Of the variables in `state` the shapes and shardings are asked for.

        Raises:
            UserError: if the model is built otherwise than the one that they are of.
        """
        adapted = adapt(self.variables, model, channels, seed)
        found, wanted = _shapes(adapted), _shapes(state.variables)
        if found != wanted:
            name, shape = sorted(found.items() ^ wanted.items())[0]
            raise UserError(
                f"config.model.pretrained does not fit: {'the model' if wanted.get(name) == shape else 'the file'} has "
                f"{name} {list(shape)}, and the other has not: give config.model the fields of what the weights are of "
                f"(shortcut, for instance)"
            )
        placed = jax.tree.map(lambda old, new: put(np.asarray(new), old.sharding), state.variables, adapted)
        ema = None if state.ema is None else jax.tree.map(jnp.copy, placed)
        return replace(state, params=placed["params"], batch_stats=placed.get("batch_stats", {}), ema=ema)


def _shapes(variables: Variables) -> dict[str, tuple[int, ...]]:
    return {
        "/".join(str(part.key) for part in path): np.shape(x)
        for path, x in jax.tree_util.tree_leaves_with_path(variables)
    }


def open_start(config: Config) -> Start | None:
    """Reads config.model.pretrained; None where it is not set.

    Raises:
        UserError: if it cannot be read, or is not of config.model.name.
    """
    source, name = config.model.pretrained, config.model.name
    if source is None:
        return None
    meant = resolve(source)
    if not meant.is_run:
        found = open_pretrained(name, meant)
        return Start(fields=found.fields, preprocess=found.preprocess, variables=found.variables)
    run = open_run(meant.location)
    card = run.read_model()
    if card.name != name:
        raise UserError(
            f"config.model.pretrained {source} holds a {card.name}, but config.model.name is {name}: give both one name"
        )
    variables = read_variables(run.checkpoints, choose(run.checkpoints, "best"), "ema")
    return Start(fields=card.fields, preprocess=card.preprocess, variables=variables)
