"""Mirror images."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, UInt8

from jaxnets.recipe.augment.op import Keys
from jaxnets.schema import ZeroToOne


class Mirrored(NamedTuple):
    """Which images of a batch are mirrored."""

    horizontally: Bool[Array, " b"]
    vertically: Bool[Array, " b"]


@dataclass(frozen=True, kw_only=True)
class Flip:
    """Mirrors an image left to right and upside down, each with a probability of its own.

    Alternating, an image is mirrored left to right in the first epoch by chance and in every second one from there on:
    two epochs show it both ways (Jordan 2024, arXiv 2404.00498).
    """

    horizontal: ZeroToOne = 0.0  # probability; 0.5 where left and right mean the same
    vertical: ZeroToOne = 0.0  # probability; 0.5 where up and down do, as seen from above or in a microscope
    alternate: bool = False  # horizontally in every second epoch, in place of by chance in each

    def draw(self, keys: Keys) -> Mirrored:
        """Returns which images are mirrored."""
        drawn = keys.lasting if self.alternate else keys.each_epoch
        horizontally = jax.vmap(lambda key: jax.random.bernoulli(key, self.horizontal))(drawn)
        if self.alternate:
            horizontally ^= keys.epoch % 2 == 1
        vertically = jnp.zeros_like(horizontally)
        if self.vertical:
            own = keys.fold(1).each_epoch  # the key itself has drawn the other way
            vertically = jax.vmap(lambda key: jax.random.bernoulli(key, self.vertical))(own)
        return Mirrored(horizontally, vertically)

    def __call__(self, keys: Keys, images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
        mirrored = self.draw(keys)
        images = jnp.where(mirrored.horizontally[:, None, None, None], images[:, :, ::-1], images)
        if not self.vertical:
            return images
        return jnp.where(mirrored.vertically[:, None, None, None], images[:, ::-1], images)
