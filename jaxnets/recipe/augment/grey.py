"""Colour taken away."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt8

from jaxnets.recipe.augment.op import Keys
from jaxnets.recipe.augment.policy.blend import grey
from jaxnets.schema import ZeroToOne


@dataclass(frozen=True, kw_only=True)
class Grey:
    """Makes an RGB image grey, its three channels alike, as torchvision's `RandomGrayscale` of Pillow images."""

    probability: ZeroToOne = 0.0  # that an image is changed; 0.2 in SimCLR

    def __call__(self, keys: Keys, images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
        if not self.probability:
            return images
        drawn = jax.vmap(lambda key: jax.random.uniform(key, (), jnp.float32))(keys.each_epoch)
        without = grey(images.astype(jnp.float32)).astype(jnp.uint8)
        return jnp.where((drawn < self.probability)[:, None, None, None], without, images)
