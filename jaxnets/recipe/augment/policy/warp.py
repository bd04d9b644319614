"""Geometric ops as one warp: for each pixel the point of the image that it comes from."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, UInt8

from jaxnets.recipe.augment.policy.dialect import Dialect
from jaxnets.recipe.augment.policy.layer import Layer
from jaxnets.recipe.augment.policy.once import once
from jaxnets.recipe.augment.policy.points import Grid, Points, sources
from jaxnets.recipe.augment.policy.shears import sample_by_shears


def warp(
    images: UInt8[Array, "b h w c"], layers: Sequence[Layer], fill: tuple[int, ...], dialect: Dialect
) -> UInt8[Array, "b h w c"]:
    """Applies the geometric ones of the layers, in their order; images of others stay as they are.

    Each image is resampled once. Of the nearest pixels that is to the bit what one op after the other gives; between
    two geometric ops, the bilinear filter blurs twice there and once here.

    Args:
        images: to be warped.
        layers: ops, the first to be applied first.
        fill: colour of what nothing comes to lie on.
        dialect: the filter, and the point that shears keep.
    """
    b, height, width, _ = images.shape
    nearest = dialect.filter == "nearest"

    def points(y: Grid, x: Grid, *, rounded: bool = nearest) -> Points:
        return sources(layers, y, x, height, width, corner=dialect.corner, rounded=rounded)

    y, x = jnp.mgrid[:height, :width].astype(jnp.float32)
    y, x = (jnp.broadcast_to(grid, (b, height, width)) for grid in (y, x))
    sampled = lax.platform_dependent(
        images,
        tpu=lambda images: sample_by_shears(images, points, rounded=nearest),
        default=lambda images: sample_by_gathering(images, *points(y, x)[:2]),
    )
    return jnp.where(points(y, x).covered[..., None], sampled, jnp.asarray(fill, jnp.uint8))


def sample_by_gathering(images: UInt8[Array, "b h w c"], y: Grid, x: Grid) -> UInt8[Array, "b h w c"]:
    """Returns the images at these points, rounded down as Pillow does; beyond the border its pixels are repeated."""
    # Computed anew for a pixel's number and for its share, a point next to a whole number may be on either side of it.
    y, x = (once(at) for at in lax.optimization_barrier((y, x)))
    top, left = jnp.floor(y), jnp.floor(x)
    down, across = (y - top)[..., None], (x - left)[..., None]

    def row(below: int) -> Array:
        first, second = (_pixels(images, top + below, left + right).astype(jnp.float32) for right in (0, 1))
        return first + (second - first) * across

    first, second = row(0), row(1)
    return (first + (second - first) * down).astype(jnp.uint8)


def _pixels(images: UInt8[Array, "b h w c"], y: Grid, x: Grid) -> UInt8[Array, "b h w c"]:
    """Returns the pixels of these rows and columns, or the nearest that there are."""
    _, height, width, _ = images.shape
    rows = jnp.clip(y, 0, height - 1).astype(jnp.int32)
    columns = jnp.clip(x, 0, width - 1).astype(jnp.int32)
    return jax.vmap(lambda image, row, column: image[row, column])(images, rows, columns)
