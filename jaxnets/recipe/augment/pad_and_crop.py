"""Padding, and a random crop back to the image's own size."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt8

from jaxnets.recipe.augment.op import Keys
from jaxnets.schema import Natural

_MODES = {"black": "constant", "reflect": "reflect", "edge": "edge"}  # NumPy's names


@dataclass(frozen=True, kw_only=True)
class PadAndCrop:
    """Pads and crops at random, each offset equally likely (He et al. 2016a, section 4.2: 4 pixels of black)."""

    padding: Natural = 0  # pixels on every side
    mode: Literal["black", "reflect", "edge"] = "black"  # reflect: without the edge itself; edge: its pixels repeated

    def __call__(self, keys: Keys, images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
        side = ((0, 0), (self.padding, self.padding), (self.padding, self.padding), (0, 0))
        padded, shape = jnp.pad(images, side, mode=_MODES[self.mode]), images.shape[1:]

        def crop(key: Array, image: Array) -> Array:
            row, column = jax.random.randint(key, (2,), 0, 2 * self.padding + 1)
            return jax.lax.dynamic_slice(image, (row, column, jnp.zeros_like(row)), shape)

        return jax.vmap(crop)(keys.each_epoch, padded)
