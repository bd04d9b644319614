"""Brightness, contrast, saturation and hue, each by a random amount."""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, Key, UInt8

from jaxnets.recipe.augment.hue import turn_hue
from jaxnets.recipe.augment.op import Keys
from jaxnets.recipe.augment.policy.blend import blend, grey
from jaxnets.schema import NonNegative, Range, ZeroToOne

_BLENDS = ("brightness", "contrast", "saturation")  # the kinds that blend an image with a plainer one


class Jitter(NamedTuple):
    """What is drawn for an image."""

    factors: Float32[Array, "3"]  # of brightness, contrast and saturation
    turn: Int32[Array, ""]  # of the hue, 255ths of the circle
    order: Int32[Array, "4"]  # of the three and hue, the numbers of which is first, second, …


@dataclass(frozen=True, kw_only=True)
class ColorJitter:
    """Changes brightness, contrast, saturation and hue in an order of their own for each image.

    As torchvision's `ColorJitter` of Pillow images: factors are drawn from 1 ± x, from 0 on, and the hue turns by up to
    ± x of the circle. With fixed parameters each is Pillow's to the level: `ImageEnhance` and HSV of 8 bits.
    """

    brightness: NonNegative = 0.0  # most that the factor differs from 1: 0.4 for 0.6 … 1.4
    contrast: NonNegative = 0.0  # likewise
    saturation: NonNegative = 0.0  # likewise; of RGB images
    hue: Annotated[float, Range(0, 0.5)] = 0.0  # most that it turns, of the circle; of RGB images
    probability: ZeroToOne = 1.0  # that an image is changed

    def __call__(self, keys: Keys, images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
        chosen = [number for number, name in enumerate(_BLENDS) if getattr(self, name)]
        if not (chosen or self.hue):
            return images
        jitter, changed = jax.vmap(self.draw)(keys.each_epoch)
        return jnp.where(changed[:, None, None, None], jittered(images, jitter, chosen, turns=self.hue > 0), images)

    def draw(self, key: Key[Array, ""]) -> tuple[Jitter, Bool[Array, ""]]:
        """Returns what is done to an image, and whether it is."""
        chance, factors, turn, order = jax.random.split(key, 4)
        most = jnp.array([self.brightness, self.contrast, self.saturation], jnp.float32)
        spread = jax.random.uniform(factors, (3,), jnp.float32, jnp.maximum(1 - most, 0), 1 + most)
        turned = jax.random.uniform(turn, (), jnp.float32, -self.hue, self.hue)
        jitter = Jitter(
            factors=spread,
            turn=jnp.trunc(turned * 255).astype(jnp.int32),
            order=jnp.argsort(jax.random.uniform(order, (4,), jnp.float32)).astype(jnp.int32),
        )
        return jitter, jax.random.uniform(chance, (), jnp.float32) < self.probability


def jittered(
    images: UInt8[Array, "b h w c"], jitter: Jitter, chosen: list[int], *, turns: bool
) -> UInt8[Array, "b h w c"]:
    """Returns the images changed, whatever was drawn at the same cost.

    The hue is turned once: the blends are gone through before and after, each time with the factor 1 for those that
    are not on that side of it.

    Args:
        images: RGB, where a blend of saturation or a turn is asked for.
        jitter: for each of them.
        chosen: numbers of the blends that may change something.
        turns: whether the hue may be turned.
    """
    rank = jnp.argsort(jitter.order, -1)
    order = jnp.argsort(jnp.where(jnp.array([number in chosen for number in range(4)]), rank, 4), -1).astype(jnp.int32)
    if not turns:
        return _blends(images, jitter.factors, order, chosen)
    first = rank[:, :3] < rank[:, 3:]
    images = _blends(images, jnp.where(first, jitter.factors, 1), order, chosen)
    images = turn_hue(images, jitter.turn)
    return _blends(images, jnp.where(first, 1, jitter.factors), order, chosen)


def _blends(
    images: UInt8[Array, "b h w c"],
    factors: Float32[Array, "b 3"],
    order: Int32[Array, "b 4"],
    chosen: list[int],
) -> UInt8[Array, "b h w c"]:
    """Returns the images after the chosen blends, each in its own order.

    In a loop, so that a compiler that computes values again rather than to keep them begins with each blend's result.
    """

    def one(place: Array, images: Array) -> Array:
        kind = jax.lax.dynamic_index_in_dim(order, place, 1)[..., None, None]
        exact = images.astype(jnp.float32)
        lesser = jnp.zeros((len(images), 1, 1, 1), jnp.float32)
        if 1 in chosen:
            lesser = jnp.where(kind == 1, mean_grey(exact), lesser)
        if 2 in chosen:
            lesser = jnp.where(kind == 2, grey(exact), lesser)
        factor = jnp.take_along_axis(factors[..., None, None], kind, 1)
        return blend(lesser, exact, factor).astype(jnp.uint8)

    return jax.lax.fori_loop(0, len(chosen), one, images)


def mean_grey(images: Float32[Array, "b h w c"]) -> Float32[Array, "b 1 1 1"]:
    """Returns the mean grey level of each image, rounded, halves up, as Pillow's `ImageEnhance.Contrast` takes it."""
    pixels = images.shape[1] * images.shape[2]  # up to 2²² of them, an int32 holds twice their sum
    total = grey(images).astype(jnp.int32).sum((1, 2, 3), keepdims=True, dtype=jnp.int32)
    return ((2 * total + pixels) // (2 * pixels)).astype(jnp.float32)
