"""Where the pixels of an image come from, by the geometric ops that are applied to it."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Shaped

from jaxnets.recipe.augment.policy.layer import Kind, Layer

Grid = Float32[Array, "b *grid"]  # of rows and columns, and of channels where asked


class Points(NamedTuple):
    """Where pixels come from."""

    y: Grid  # row of the image
    x: Grid
    covered: Bool[Array, "b *grid"]  # it is there, and no cutout hides it


def sources(
    layers: Sequence[Layer], y: Grid, x: Grid, height: int, width: int, *, corner: float, rounded: bool
) -> Points:
    """Returns where the pixels of these rows and columns come from, rounded to whole pixels before each op if asked."""
    covered = jnp.ones(y.shape, bool)
    for layer in reversed(layers):
        covered &= ~_hole(layer, y, x, height, width)
        y, x = _source(layer, y, x, height, width, corner)
        covered &= (y >= -0.5) & (y < height - 0.5) & (x >= -0.5) & (x < width - 0.5)
        if rounded:
            y, x = jnp.floor(y + 0.5), jnp.floor(x + 0.5)
    return Points(y, x, covered)


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
        return spread(by_x, x) * x + spread(by_y, y) * y + spread(start, x)

    return line(sine + down, cosine, to_y), line(cosine, across - sine, to_x)


def _hole(layer: Layer, y: Grid, x: Grid, height: int, width: int) -> Bool[Array, "b *grid"]:
    """Tells which points lie within the square of a cutout, which spans an even number of pixels."""
    if layer.centre is None:
        return jnp.zeros(y.shape, bool)
    half = spread(jnp.where(layer.kind == Kind.CUTOUT, layer.amount, 0.0), y)
    row, column = (spread(jnp.floor(layer.centre[:, i] * side), y) for i, side in enumerate((height, width)))
    return (y >= row - half) & (y < row + half) & (x >= column - half) & (x < column + half)


def spread(x: Shaped[Array, " b"], grid: Shaped[Array, "b *grid"]) -> Shaped[Array, "b *ones"]:
    """Returns values of each image so that they go with a grid."""
    return x.reshape(-1, *[1] * (grid.ndim - 1))
