"""Cutout."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32, Key, UInt8

from jaxnets.preprocess import Preprocess
from jaxnets.recipe.augment.box import around, covered
from jaxnets.recipe.augment.fill import Fill, filling
from jaxnets.recipe.augment.op import Keys
from jaxnets.schema import Natural, ZeroToBelowOne, ZeroToOne


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """Takes a square out of each image (DeVries and Taylor 2017): 16 of CIFAR-10's 32 pixels, 8 of CIFAR-100's.

    Its middle is a pixel of the image, each equally likely, so that the border may clip it.
    """

    side: Natural = 0  # pixels; 0: as `share` says
    share: ZeroToBelowOne = 0.0  # instead: of the image's shorter side; 0.5 in EfficientNetV2's fine-tuning, with noise
    whole: bool = False  # the square lies within the image, each place equally likely, as in airbench
    probability: ZeroToOne = 1.0  # that an image is changed
    fill: Fill = "mean"

    def bind(self, preprocess: Preprocess) -> "Cut | None":
        """Returns the op, for images of this size that are normalised so; None if it does nothing."""
        side = self.side or round(self.share * min(preprocess.height, preprocess.width))
        if not (self.side or self.share) or not self.probability:
            return None
        return Cut(
            side=max(side, 1),
            whole=self.whole,
            probability=self.probability,
            fill=self.fill,
            mean=preprocess.mean,
            std=preprocess.std,
        )


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Takes a square of `side` pixels out of each image; the other parameters are those of `Cutout`."""

    side: int
    whole: bool
    probability: float
    fill: Fill
    mean: tuple[float, ...]  # per channel, of pixels as 0…1
    std: tuple[float, ...]  # likewise

    def __call__(self, keys: Keys, images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
        height, width = images.shape[1:3]

        def draw(key: Key[Array, ""]) -> tuple[Array, ...]:
            chance, row, column = jax.random.split(key, 3)
            changed = jax.random.uniform(chance, (), jnp.float32) < self.probability
            return changed, *self._stretch(row, height), *self._stretch(column, width)

        changed, top, bottom, left, right = jax.vmap(draw)(keys.fold(0).each_epoch)
        cut = covered(top, bottom, left, right, height, width) & changed[:, None, None]
        new = filling(self.fill, keys.fold(1).each_epoch, images, self.mean, self.std)
        return jnp.where(cut[..., None], new, images)

    def _stretch(self, key: Key[Array, ""], pixels: int) -> tuple[Int32[Array, ""], Int32[Array, ""]]:
        """Returns where the square begins and ends, along one side of the image."""
        if self.whole:
            start = jax.random.randint(key, (), 0, max(pixels - self.side, 0) + 1, jnp.int32)
            return start, start + self.side
        centre = jax.random.randint(key, (), 0, pixels, jnp.int32)
        return around(centre, jnp.full_like(centre, self.side), pixels)
