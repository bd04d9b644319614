"""DeiT III's three augmentations."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, Key, UInt8

from jaxnets.recipe.augment.blur import gaussian_blur
from jaxnets.recipe.augment.op import Keys
from jaxnets.recipe.augment.policy.blend import grey
from jaxnets.schema import ZeroToOne

_THRESHOLD = 128  # level from which on Pillow's solarize inverts
_RADIUS = (0.1, 2.0)  # pixels, least and most


@dataclass(frozen=True, kw_only=True)
class ThreeAugment:
    """Makes an RGB image grey, solarizes it at 128 or blurs it by a radius of 0.1 … 2 pixels, each equally likely.

    3-Augment (Touvron et al. 2022, section 3.2, and `augment.py` of its code), whose recipe has colour jitter of 0.3
    for brightness, contrast and saturation after it. timm's `--aa 3a`. All three are computed for every image.
    """

    probability: ZeroToOne = 0.0  # that an image is changed, by exactly one of them; DeiT III: 1

    def __call__(self, keys: Keys, images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
        if not self.probability:
            return images
        which, radius = jax.vmap(self.draw)(keys.each_epoch)
        which = which[:, None, None, None]
        solarized = jnp.where(images < _THRESHOLD, images, 255 - images)
        blurred = gaussian_blur(images, radius)
        without = grey(images.astype(jnp.float32)).astype(jnp.uint8)
        others = jnp.where(which == 1, without, jnp.where(which == 2, solarized, blurred))
        return jnp.where(which == 0, images, others)

    def draw(self, key: Key[Array, ""]) -> tuple[Int32[Array, ""], Float32[Array, ""]]:
        """Returns 0 for an image that is left, 1 for grey, 2 for solarize, 3 for blur, and the blur's radius."""
        chance, which, radius = jax.random.split(key, 3)
        changed = jax.random.uniform(chance, (), jnp.float32) < self.probability
        number = jnp.where(changed, jax.random.randint(which, (), 1, 4, jnp.int32), 0)
        return number, jax.random.uniform(radius, (), jnp.float32, *_RADIUS)
