"""Ops that differ from image to image, applied to a whole batch at one cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, UInt8

from jaxnets.recipe.augment.op import Keys
from jaxnets.recipe.augment.policy.blend import blend, brightness, smooth
from jaxnets.recipe.augment.policy.dialect import Dialect
from jaxnets.recipe.augment.policy.layer import Kind, Layer, Policy
from jaxnets.recipe.augment.policy.lookup import histogram, lookup
from jaxnets.recipe.augment.policy.once import once
from jaxnets.recipe.augment.policy.tables import tables
from jaxnets.recipe.augment.policy.warp import warp


@dataclass(frozen=True, kw_only=True)
class DrawnOps:
    """The op that a policy is in a recipe."""

    policy: Policy
    fill: tuple[int, ...]  # colour of what nothing comes to lie on, 0 … 255 per channel

    def __call__(self, keys: Keys, images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
        layers = self.policy.draw(keys, *images.shape[1:3])
        return apply(images, layers, self.fill, self.policy.dialect)


def apply(
    images: UInt8[Array, "b h w c"], layers: Sequence[Layer], fill: tuple[int, ...], dialect: Dialect
) -> UInt8[Array, "b h w c"]:
    """Applies the layers in their order.

    Each is what it can be of two: one of the levels, or one of the geometry, which for the other ops are identities. So
    every image goes the same way, and costs the same. A warp takes along the geometric ops of the layer after it, as
    nothing lies between: two layers need one warp.
    """
    for number, layer in enumerate(layers):
        images = change_levels(once(images), layer, dialect)
        geometric = layers[:2] if number == 0 else layers[number + 1 : number + 2]
        if geometric:
            images = warp(once(images), geometric, fill, dialect)
    return images


def change_levels(images: UInt8[Array, "b h w c"], layer: Layer, dialect: Dialect) -> UInt8[Array, "b h w c"]:
    """Applies a layer's ops that are not geometric."""
    _, height, width, _ = images.shape
    pixels = height * width
    grey = brightness(images)
    if dialect.contrast_from_area:
        mean = jnp.full(len(images), min(pixels // 256, 255), jnp.int32)
    else:
        mean = (2 * grey.astype(jnp.int32).sum((1, 2, 3), dtype=jnp.int32) + pixels) // (2 * pixels)
    changed = lookup(images, once(tables(layer, histogram(images), mean)))
    kind, factor = (x[:, None, None, None] for x in (layer.kind, layer.amount))
    lesser = jnp.where(kind == Kind.SHARPNESS, smooth(images), grey)
    blended = blend(lesser.astype(jnp.float32), images.astype(jnp.float32), factor).astype(jnp.uint8)
    return jnp.where((kind == Kind.COLOR) | (kind == Kind.SHARPNESS), blended, changed)
