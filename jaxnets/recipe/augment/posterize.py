"""Fewer levels of brightness."""

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt8

from jaxnets.recipe.augment.op import Keys
from jaxnets.schema import Range, ZeroToOne


@dataclass(frozen=True, kw_only=True)
class Posterize:
    """Keeps the highest bits of each pixel and clears the others, as Pillow's `ImageOps.posterize`."""

    probability: ZeroToOne = 0.0  # that an image is changed
    bits: Annotated[int, Range(1, 8)] = 4  # kept of 8

    def __call__(self, keys: Keys, images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
        changed = jax.vmap(lambda key: jax.random.bernoulli(key, self.probability))(keys.each_epoch)
        return jnp.where(changed[:, None, None, None], images & jnp.uint8(256 - 2 ** (8 - self.bits)), images)
