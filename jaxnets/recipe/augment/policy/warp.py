"""Geometric ops as one warp: for each pixel the point of the image that it comes from."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float32, UInt8

from jaxnets.recipe.augment.policy.dialect import Dialect
from jaxnets.recipe.augment.policy.layer import Kind, Layer

Grid = Float32[Array, "b h w"]


class Points(NamedTuple):
    """Where pixels come from."""

    y: Grid  # row of the image
    x: Grid
    covered: Bool[Array, "b h w"]  # it is there, and no cutout hides it


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

    def points(y: Grid, x: Grid, *, rounded: bool = dialect.filter == "nearest") -> Points:
        covered = jnp.ones(y.shape, bool)
        for layer in reversed(layers):
            covered &= ~_hole(layer, y, x, height, width)
            y, x = _source(layer, y, x, height, width, dialect.corner)
            covered &= (y >= -0.5) & (y < height - 0.5) & (x >= -0.5) & (x < width - 0.5)
            if rounded:
                y, x = jnp.floor(y + 0.5), jnp.floor(x + 0.5)
        return Points(y, x, covered)

    y, x = jnp.mgrid[:height, :width].astype(jnp.float32)
    y, x = (jnp.broadcast_to(grid, (b, height, width)) for grid in (y, x))
    reach = 1.5 if dialect.filter == "nearest" else 1.0
    sampled = lax.platform_dependent(
        images,
        tpu=lambda images: sample_by_products(images, points, reach),
        default=lambda images: sample_by_gathering(images, *points(y, x)[:2]),
    )
    return jnp.where(points(y, x).covered[..., None], sampled, jnp.asarray(fill, jnp.uint8))


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


def sample_by_gathering(images: UInt8[Array, "b h w c"], y: Grid, x: Grid) -> UInt8[Array, "b h w c"]:
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


# Columns, or rows, from one pixel's source to its right neighbour's: what two ops leave of it whatever is drawn, up to
# magnitude 30 of TensorFlow's policy and 20 of timm's, where these end.
_LEAST_STEP = 0.5


def sample_by_products(
    images: UInt8[Array, "b h w c"], points: Callable[..., Points], reach: float
) -> UInt8[Array, "b h w c"]:
    """Returns the same as two products of matrices for each image, as a TPU gathers an element at a time.

    Pixel (i, j) takes pixels of the columns within `reach` of x(i, j). Column q is taken by few pixels of row i, as
    many as have x within `reach` of q, which are neighbours: their slots. The first product gives each row, column and
    slot the column's value at that slot's y; the second brings those to the pixels of the row. Where images are turned
    by more than 45°, rows and columns change places.
    """
    b, height, width, channels = images.shape
    side, numbers = max(height, width), jnp.arange(max(height, width), dtype=jnp.float32)
    y, x = (
        jnp.broadcast_to(numbers[:height, None], (b, height, width)),
        jnp.broadcast_to(numbers[:width], (b, height, width)),
    )
    last = width - 1.0
    first, end = points(y[..., :1], x[..., :1], rounded=False), points(y[..., :1], x[..., :1] + last, rounded=False)
    step_y, step_x = (end.y - first.y) / last, (end.x - first.x) / last
    turned = (jnp.abs(step_y) > jnp.abs(step_x))[:, :1]  # [b, 1, 1]
    start, step = jnp.where(turned, first.y, first.x), jnp.where(turned, step_y, step_x)  # of x; [b, h, 1]
    square = jnp.pad(images, ((0, 0), (0, side - height), (0, side - width), (0, 0)))
    square = jnp.where(turned[..., None], jnp.swapaxes(square, 1, 2), square)

    def along_and_across(found: Points) -> tuple[Array, Array]:
        down, right = jnp.clip(found.y, 0, height - 1), jnp.clip(found.x, 0, width - 1)
        return jnp.where(turned, right, down), jnp.where(turned, down, right)

    slots = math.ceil(2 * reach / _LEAST_STEP)
    leftmost = jnp.floor((numbers - jnp.sign(step) * reach - start) / step)
    slot = (leftmost[..., None] + 1 + jnp.arange(slots, dtype=jnp.float32)).reshape(b, height, side * slots)
    own, _ = along_and_across(points(jnp.broadcast_to(y[..., :1], slot.shape), slot))
    hat = _hat(numbers - own.reshape(b, height, side, slots, 1))
    columns = jnp.einsum("biqsp,bpqc->biqsc", hat, square.astype(jnp.bfloat16), preferred_element_type=jnp.bfloat16)
    _, across = along_and_across(points(y, x))
    taken = _hat(jnp.repeat(numbers, slots) - across[..., None])
    taken = jnp.where(slot[:, :, None] == x[..., None], taken, jnp.bfloat16(0))
    columns = columns.reshape(b, height, side * slots, channels)
    made = jnp.einsum("bijk,bikc->bijc", taken, columns, preferred_element_type=jnp.float32)
    return jnp.clip(jnp.floor(made + _ROUNDING), 0, 255).astype(jnp.uint8)


_ROUNDING = 0.25  # levels: shares are rounded to 8 bits


def _hat(distance: Array) -> Array:
    return jnp.maximum(1 - jnp.abs(distance), 0).astype(jnp.bfloat16)
