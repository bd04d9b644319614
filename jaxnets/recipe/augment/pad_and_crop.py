"""Padding, and a random crop back to the image's own size."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, UInt8

from jaxnets.schema import Natural


@dataclass(frozen=True, kw_only=True)
class PadAndCrop:
    """Pads with black and crops at random, each offset equally likely (He et al. 2016a, section 4.2: 4 pixels)."""

    padding: Natural = 0  # pixels on every side

    def __call__(self, keys: Key[Array, " b"], images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
        side = ((0, 0), (self.padding, self.padding), (self.padding, self.padding), (0, 0))
        padded, shape = jnp.pad(images, side), images.shape[1:]

        def crop(key: Array, image: Array) -> Array:
            row, column = jax.random.randint(key, (2,), 0, 2 * self.padding + 1)
            return jax.lax.dynamic_slice(image, (row, column, jnp.zeros_like(row)), shape)

        return jax.vmap(crop)(keys, padded)
