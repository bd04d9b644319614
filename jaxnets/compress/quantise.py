"""Makes a run's network one that computes as it would in 8 bits, and writes the first checkpoint of another run."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.compress.begin import Beginning
from jaxnets.config import Config
from jaxnets.errors import UserError
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.quantised.network import QUANTISED, RANGES
from jaxnets.models.registry import create_model, find_family
from jaxnets.run.directory import RunDirectory
from jaxnets.soup.statistics import make_statistics, with_statistics
from jaxnets.train.display import Display


def check_quantisable(name: str, dtype: str) -> None:
    """Refuses what 8 bits are not simulated of.

    Raises:
        UserError: for a network with attention, and for another dtype than float32.
    """
    if find_family(name).structure(create_model(name)).tokens is not None:
        raise UserError(
            f"{name} has attention, whose products of two activations are not simulated in 8 bits: quantise it after "
            f"training (python -m jaxnets.export --format onnx --int8), or take another model"
        )
    if dtype != "float32":
        raise UserError(f"8 bits are simulated in float32, and config.dtype is {dtype}: add --config.dtype=float32")


def quantise(config: Config, run: RunDirectory, display: Display) -> None:
    """Writes config.json, model.json and the checkpoint of step 0 of a run that a training then goes on with.

    The norms are part of the weights before them from here on. Each range of activations begins as the mean, over some
    batches of training images, of the lowest and of the highest value.

    Raises:
        UserError: if the network has nothing to take to 8 bits, or the data cannot be read.
    """
    begins = Beginning(config, run)
    seen = begins.setup.data.preprocess
    begins.with_fields({QUANTISED: True})
    built = begins.setup.built
    image = jax.ShapeDtypeStruct((1, seen.height, seen.width, seen.channels), jnp.float32)
    with plain_convolutions():
        shapes: Any = jax.eval_shape(lambda x: built.model.init(jax.random.key(0), x), image)
    ranges = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes["batch_stats"][RANGES])
    if not ranges:
        raise UserError(
            f"{config.model.name} has no convolution, and nothing else is taken to 8 bits: take another model"
        )
    statistics = {**begins.variables.get("batch_stats", {}), RANGES: ranges}
    variables = begins.placed({**begins.variables, "batch_stats": statistics})
    of_batch = jax.jit(make_statistics(built.model, seen, built.recipe, seed=config.seed))
    variables = with_statistics(variables, of_batch, begins.batches())
    count = len(jax.tree.leaves(ranges))
    display.say(f"qat: weights and {count} activations in 8 bits, the norms folded into the weights")
    begins.write(variables, {"method": "qat", "run": config.model.pretrained, "activations": count}, display)
