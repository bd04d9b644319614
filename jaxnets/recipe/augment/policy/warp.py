"""Geometric ops as one warp: for each pixel the point of the image that it comes from."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, UInt8

from jaxnets.recipe.augment.policy.dialect import Dialect
from jaxnets.recipe.augment.policy.layer import Kind, Layer

Grid = Float32[Array, "b h w"]


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
    y, x = jnp.mgrid[:height, :width].astype(jnp.float32)
    y, x = (jnp.broadcast_to(grid, (b, height, width)) for grid in (y, x))
    covered = jnp.ones((b, height, width), bool)
    for layer in reversed(layers):
        covered &= ~_hole(layer, y, x, height, width)
        y, x = _source(layer, y, x, height, width, dialect.corner)
        covered &= (y >= -0.5) & (y < height - 0.5) & (x >= -0.5) & (x < width - 0.5)
        if dialect.filter == "nearest":
            y, x = jnp.floor(y + 0.5), jnp.floor(x + 0.5)
    sampled = _bilinear(images, y, x) if dialect.filter == "bilinear" else _pixels(images, y, x)
    return jnp.where(covered[..., None], sampled, jnp.asarray(fill, jnp.uint8))


def _source(layer: Layer, y: Grid, x: Grid, height: int, width: int, corner: float) -> tuple[Grid, Grid]:
    """Returns the points, as row and column, that pixels at these points come from."""
    kind, amount = layer.kind, layer.amount
    still = jnp.zeros_like(amount)

    def only(*kinds: Kind) -> Array:
        return jnp.where(jnp.isin(kind, jnp.asarray(kinds, jnp.int32)), amount, still)

    angle = only(Kind.ROTATE) * (jnp.pi / 180)
    across, down = only(Kind.SHEAR_X), only(Kind.SHEAR_Y)
    middle = ((height - 1) / 2, (width - 1) / 2)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    to_x = only(Kind.TRANSLATE_X) + across * corner + middle[1] * (1 - cosine) + middle[0] * sine
    to_y = only(Kind.TRANSLATE_Y) + down * corner + middle[0] * (1 - cosine) - middle[1] * sine

    def line(by_x: Array, by_y: Array, start: Array) -> Grid:
        return by_x[:, None, None] * x + by_y[:, None, None] * y + start[:, None, None]

    return line(sine + down, cosine, to_y), line(cosine, across - sine, to_x)


def _hole(layer: Layer, y: Grid, x: Grid, height: int, width: int) -> Bool[Array, "b h w"]:
    """Tells which points lie within the square of a cutout, which spans an even number of pixels."""
    if layer.centre is None:
        return jnp.zeros(y.shape, bool)
    half = jnp.where(layer.kind == Kind.CUTOUT, layer.amount, 0.0)[:, None, None]
    row, column = (jnp.floor(layer.centre[:, i, None, None] * side) for i, side in enumerate((height, width)))
    return (y >= row - half) & (y < row + half) & (x >= column - half) & (x < column + half)


def _bilinear(images: UInt8[Array, "b h w c"], y: Grid, x: Grid) -> UInt8[Array, "b h w c"]:
    """Returns the images at these points, rounded down as Pillow does; beyond the border its pixels are repeated."""
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
