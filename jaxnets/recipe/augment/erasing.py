"""Random erasing."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32, Key, UInt8

from jaxnets.preprocess import Preprocess
from jaxnets.recipe.augment.box import covered
from jaxnets.recipe.augment.fill import Fill, filling
from jaxnets.recipe.augment.op import Keys
from jaxnets.schema import Count, ZeroToOne

_TRIES = 10  # of torchvision and timm


@dataclass(frozen=True, kw_only=True)
class Erasing:
    """Which boxes are erased, and with what (Zhong et al. 2017, as torchvision and timm draw them).

    Both erase after normalisation, timm after mixing too; here the boxes are in the images before either.
    """

    probability: ZeroToOne = 0.0  # that something of an image is erased
    area: tuple[float, ...] = (0.02, 1 / 3)  # shares of the image, least and most; torchvision 0.02,0.33
    # height / width of a box, least and most, evenly drawn in its logarithm; torchvision 0.3,3.3
    aspect: tuple[float, ...] = (0.3, 1 / 0.3)
    count: Count = 1  # boxes of an image, at most; each number is equally likely, and they share the area
    fill: Fill = "mean"  # timm's const, pixel and rand are mean, noise and colour

    def bind(self, preprocess: Preprocess) -> "Erase | None":
        """Returns the op, for images that are normalised so; None if it does nothing."""
        if not self.probability:
            return None
        (least, most), (widest, tallest) = self.area, self.aspect
        return Erase(
            probability=self.probability,
            area=(least, most),
            aspect=(widest, tallest),
            count=self.count,
            fill=self.fill,
            mean=preprocess.mean,
            std=preprocess.std,
        )


@dataclass(frozen=True, kw_only=True)
class Erase:
    """Erases boxes of each image; the parameters are those of `Erasing`."""

    probability: float
    area: tuple[float, float]
    aspect: tuple[float, float]
    count: int
    fill: Fill
    mean: tuple[float, ...]  # per channel, of pixels as 0…1
    std: tuple[float, ...]  # likewise

    def __call__(self, keys: Keys, images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
        height, width = images.shape[1:3]
        number = jax.vmap(self._number)(keys.fold(0).each_epoch)
        new = filling(self.fill, keys.fold(1).each_epoch, images, self.mean, self.std)
        for i in range(self.count):
            own = keys.fold(i + 2)
            top, left, tall, wide = jax.vmap(lambda key, n: self.draw(key, n, height, width))(own.each_epoch, number)
            erased: Bool[Array, "b h w"] = covered(top, top + tall, left, left + wide, height, width)
            erased &= (i < number)[:, None, None]
            if self.fill == "colour" and i:  # each box has its own
                new = filling(self.fill, own.fold(0).each_epoch, images, self.mean, self.std)
            images = jnp.where(erased[..., None], new, images)
        return images

    def _number(self, key: Key[Array, ""]) -> Int32[Array, ""]:
        """Returns how many boxes an image has."""
        chance, count = jax.random.split(key)
        erases = jax.random.uniform(chance, (), jnp.float32) < self.probability
        return jnp.where(erases, jax.random.randint(count, (), 1, self.count + 1, jnp.int32), 0)

    def draw(
        self, key: Key[Array, ""], number: Int32[Array, ""], height: int, width: int
    ) -> tuple[Int32[Array, ""], Int32[Array, ""], Int32[Array, ""], Int32[Array, ""]]:
        """Returns top, left, height and width of one of so many boxes, in pixels; of no size where none fits.

        Ten times an area is drawn evenly and an aspect evenly in its logarithm, and both sides are rounded; the first
        box that is smaller than the image both ways lies anywhere in it.
        """
        sizes, place = jax.random.split(key)
        areas, shapes = jax.random.uniform(sizes, (2, _TRIES), jnp.float32)
        low, high = map(math.log, self.aspect)
        shape = jnp.exp(low + (high - low) * shapes)
        area = (self.area[0] + (self.area[1] - self.area[0]) * areas) * (height * width)
        area /= jnp.maximum(number, 1).astype(jnp.float32)
        tall, wide = jnp.round(jnp.sqrt(area * shape)), jnp.round(jnp.sqrt(area / shape))
        fits = (tall < height) & (wide < width)
        first = jnp.argmax(fits)
        tall, wide = (jnp.where(fits.any(), x[first], 0).astype(jnp.int32) for x in (tall, wide))
        top, left = jax.random.uniform(place, (2,), jnp.float32)
        return _place(top, height - tall), _place(left, width - wide), tall, wide


def _place(share: Array, most: Array) -> Int32[Array, ""]:
    """Returns a whole number from 0 to `most`, each equally likely."""
    return jnp.minimum((share * (most + 1).astype(jnp.float32)).astype(jnp.int32), most)
