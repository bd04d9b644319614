"""A box of random size and shape, resized to the size that is trained at."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Key, UInt8

from jaxnets.recipe.augment.cut import Filter, cut_out, drawn_filter
from jaxnets.recipe.augment.flip import Flip
from jaxnets.recipe.augment.op import Keys

_TRIES = 10  # of torchvision and timm


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop:
    """Which boxes are drawn (Szegedy et al. 2015, section 6, as torchvision and timm draw them)."""

    area: tuple[float, ...] | None = None  # shares of the image, least and most: 0.08,1; None: no random crop
    aspect: tuple[float, ...] = (3 / 4, 4 / 3)  # width / height of a box, least and most, evenly drawn in its logarithm
    filter: Filter | None = None  # that resizes; None: evaluation's


@dataclass(frozen=True, kw_only=True)
class RandomCut:
    """Cuts a random box out of each canvas, whose geometry is that of the original."""

    height: int  # pixels, of what is cut out
    width: int
    area: tuple[float, float]
    aspect: tuple[float, float]
    filter: Filter
    flip: Flip | None = None

    def __call__(
        self, keys: Keys, canvas: UInt8[Array, "b s t c"], aspect: Float32[Array, " b"]
    ) -> UInt8[Array, "b {self.height} {self.width} c"]:
        mirrored = self.flip.draw(keys.fold(0)) if self.flip else None
        bicubic = drawn_filter(self.filter, keys.fold(1))
        boxes = jax.vmap(partial(draw_box, area=self.area, ratio=self.aspect))(keys.fold(2).each_epoch, aspect)
        return cut_out(canvas, boxes, self.height, self.width, bicubic=bicubic, mirrored=mirrored)

    def draws(self, keys: Keys) -> "BoxDraws":
        """Returns what the boxes of a batch are drawn from, before the images' aspects are known."""
        bicubic = jnp.broadcast_to(drawn_filter(self.filter, keys.fold(1)), keys.epoch.shape)
        return BoxDraws(jax.vmap(_numbers)(keys.fold(2).each_epoch), bicubic)

    def box(self, numbers: Sequence[float], aspect: float) -> tuple[float, float, float, float]:
        """Returns the box that `draw_box` draws for an image of this aspect, of one row of `draws`, to six digits.

        In Python's own numbers: for one image that is twenty times as quick as in arrays.
        """
        low, high = math.log(self.aspect[0]), math.log(self.aspect[1])
        for number in range(_TRIES):
            area = self.area[0] + (self.area[1] - self.area[0]) * numbers[number]
            shape = math.exp(low + (high - low) * numbers[_TRIES + number]) / aspect
            height, width = math.sqrt(area / shape), math.sqrt(area * shape)
            if height <= 1 and width <= 1:
                top, left = numbers[2 * _TRIES :]
                return top * (1 - height), left * (1 - width), height, width
        height, width = min(1.0, aspect / self.aspect[0]), min(1.0, self.aspect[1] / aspect)
        return (1 - height) / 2, (1 - width) / 2, height, width


class BoxDraws(NamedTuple):
    numbers: Float32[Array, "b n"]  # 0…1: areas, aspects, and where the box lies
    bicubic: Bool[Array, " b"]  # how each is resized


@dataclass(frozen=True, kw_only=True)
class HostCut:
    """Of images that the host has cut by `random` already, when it decoded them: mirrors them as that would.

    Where a stage of the run trains at a smaller size, it also resizes them.
    """

    random: RandomCut
    height: int | None = None  # pixels that are trained at; None: those that the host cuts
    width: int | None = None

    @property
    def flip(self) -> Flip | None:
        return self.random.flip

    def __call__(
        self, keys: Keys, canvas: UInt8[Array, "b h w c"], aspect: Float32[Array, " b"]
    ) -> UInt8[Array, "b h2 w2 c"]:
        height, width = self.height or self.random.height, self.width or self.random.width
        if (height, width) == canvas.shape[1:3]:
            return canvas if self.flip is None else self.flip(keys.fold(0), canvas)
        mirrored = None if self.flip is None else self.flip.draw(keys.fold(0))
        whole = jnp.broadcast_to(jnp.array([0, 0, 1, 1], jnp.float32), (len(canvas), 4))
        bicubic = drawn_filter(self.random.filter, keys.fold(1))
        return cut_out(canvas, whole, height, width, bicubic=bicubic, mirrored=mirrored)


def draw_box(
    key: Key[Array, ""], aspect: Float32[Array, ""], *, area: tuple[float, float], ratio: tuple[float, float]
) -> Float32[Array, "4"]:
    """Returns top, left, height and width of a box, as shares of an image of this aspect (width / height).

    Ten times an area is drawn evenly and an aspect evenly in its logarithm; the first box that fits is placed evenly.
    Where none fits, it is the largest centre crop whose aspect is within the ratio. Sides are not rounded to whole
    pixels, as torchvision and timm do it: the canvas has other pixels than the original.
    """
    numbers = _numbers(key)
    areas = area[0] + (area[1] - area[0]) * numbers[:_TRIES]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shapes = jnp.exp(low + (high - low) * numbers[_TRIES:-2]) / aspect  # of a box, were the image a square
    tries = jnp.stack([jnp.sqrt(areas / shapes), jnp.sqrt(areas * shapes)], -1)  # height and width
    fits = (tries <= 1).all(-1)
    largest = jnp.stack([jnp.minimum(1, aspect / ratio[0]), jnp.minimum(1, ratio[1] / aspect)])
    size = jnp.where(fits.any(), tries[jnp.argmax(fits)], largest)
    corner = jnp.where(fits.any(), numbers[-2:], 0.5)
    return jnp.concatenate([corner * (1 - size), size])


def _numbers(key: Key[Array, ""]) -> Float32[Array, " n"]:
    sizes, place = jax.random.split(key)
    drawn = jax.random.uniform(sizes, (2, _TRIES), jnp.float32)
    return jnp.concatenate([drawn.reshape(-1), jax.random.uniform(place, (2,), jnp.float32)])
