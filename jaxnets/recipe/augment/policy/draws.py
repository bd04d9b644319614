"""The random numbers that a policy's layers come from."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32

from jaxnets.recipe.augment.op import Keys


class Draws(NamedTuple):
    """Of each example and layer, evenly from 0 to below 1, each for one use."""

    op: Float32[Array, "b layers"]
    applied: Float32[Array, "b layers"]
    sign: Float32[Array, "b layers"]
    level: Float32[Array, "b layers"]
    row: Float32[Array, "b layers"]  # of a cutout
    column: Float32[Array, "b layers"]

    def signs(self) -> Float32[Array, "b layers"]:
        """Returns −1 or 1, each half of the time."""
        return jnp.where(self.sign < 0.5, -1.0, 1.0).astype(jnp.float32)


def draw(keys: Keys, layers: int) -> Draws:
    numbers = jax.vmap(lambda key: jax.random.uniform(key, (len(Draws._fields), layers), jnp.float32))(keys.each_epoch)
    return Draws(*jnp.moveaxis(numbers, 1, 0))


def one_of(share: Float32[Array, "*n"], count: int) -> Int32[Array, "*n"]:
    """Returns whole numbers from 0 to below `count`, each equally often."""
    return jnp.minimum((share * count).astype(jnp.int32), count - 1)


def chosen(table: Array, row: Int32[Array, "*n"]) -> Array:
    """Returns rows of a small table of constants."""
    return jnp.take(table, row, axis=0)


def happens(share: Float32[Array, "*n"], probability: float | Array) -> Bool[Array, "*n"]:
    """Tells what happens with a probability; with 0 nothing does, with 1 everything."""
    return share < probability
