"""Turns by right angles."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt8

from jaxnets.recipe.augment.op import Keys
from jaxnets.schema import ZeroToOne


@dataclass(frozen=True, kw_only=True)
class QuarterTurn:
    """Turns a square image by 90°, 180° or 270°, each equally likely, where no side is up: seen from above, in tissue.

    With a probability of 0.75 and a horizontal flip of 0.5, all eight symmetries of the square are equally likely.

    Raises:
        ValueError: if the images are not square.
    """

    probability: ZeroToOne = 0.0  # that an image is turned

    def __call__(self, keys: Keys, images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
        if images.shape[1] != images.shape[2]:
            raise ValueError(f"images that are turned by 90° must be square, found {images.shape[1:3]}")

        def turns(key: Array) -> Array:
            chance, which = jax.random.split(key)
            return jnp.where(jax.random.bernoulli(chance, self.probability), jax.random.randint(which, (), 1, 4), 0)

        number = jax.vmap(turns)(keys.each_epoch)[:, None, None, None]
        turned = jnp.where(number % 2 == 1, jnp.swapaxes(images, 1, 2)[:, ::-1], images)  # 90°, against the clock
        return jnp.where(number >= 2, turned[:, ::-1, ::-1], turned)
