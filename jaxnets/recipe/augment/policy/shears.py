"""A warp in the form that a TPU runs fast: whole rows and columns move, and nothing is gathered.

All geometric ops keep areas, so that a turn by quarters, three shears and a translation make up any of them. Shears by
whole pixels, along rows, columns and rows again, bring each pixel of a canvas to one pixel of the result (Paeth 1986, A
fast algorithm for general raster rotation), a pixel or two away from where it belongs. Each pixel of the canvas
therefore first becomes what its pixel of the result shall be, which takes its own neighbours alone, and then is moved.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, UInt8

from jaxnets.recipe.augment.policy.draws import chosen
from jaxnets.recipe.augment.policy.points import Points

Places = Int32[Array, "b h w"]
Flags = Bool[Array, " b"]

# Pixels from where whole shears take a pixel to its source, at most, of whatever two ops are drawn up to magnitude 30
# of TensorFlow's policy and 20 of timm's, where these end: 1.9, and 1.5 more where points are rounded after each op.
_LINEAR_REACH, _ROUNDED_REACH = 2, 3
_MARGIN = 4  # pixels beyond the border that shears may so take for the image's
# There are shears of which one along rows is this at most: those of a turn by 45° reach it.
_LEAST_SHEAR = math.tan(math.pi / 8)


class Line(NamedTuple):
    """One coordinate of where points come from: by_x · x + by_y · y + offset."""

    by_x: Float32[Array, " b"]
    by_y: Float32[Array, " b"]
    offset: Float32[Array, " b"]


class Shear(NamedTuple):
    """How far each line of a canvas moves along itself: its number times a slope, and an offset, in whole pixels."""

    slope: Int32[Array, " b"]  # in parts of 2^bits
    offset: Int32[Array, " b"]  # of the middle line
    bits: int
    last: int  # number of the last line of the canvas

    def __call__(self, line: Int32[Array, "b ..."]) -> Int32[Array, "b ..."]:
        """Returns whole numbers that do not depend on how a compiler rounds: two places must agree on them."""
        slope, offset = (x.reshape(-1, *[1] * (line.ndim - 1)) for x in (self.slope, self.offset))
        return (slope * (2 * line - self.last) + 2 * offset + (1 << self.bits)) >> (self.bits + 1)


class Shears(NamedTuple):
    """What makes the result of a canvas: it is turned, moved, and turned back."""

    mirrored: Flags  # left to right, first of all
    flipped: Flags  # upside down
    swapped: Flags  # rows become columns
    swapped_back: Flags  # at the end
    first: Shear  # along rows
    second: Shear  # along columns
    third: Shear  # along rows
    start: Int32[Array, " b"]  # the first column between the first and the third shear


def sample_by_shears(
    images: UInt8[Array, "b h w c"], points: Callable[..., Points], *, rounded: bool
) -> UInt8[Array, "b h w c"]:
    """Returns what `sample_by_gathering` returns, of all points that lie in the image; of others any pixel.

    Args:
        images: to be sampled.
        points: gives, for rows and columns of the result, where they come from; with `rounded=False` by linear
            functions that keep areas.
        rounded: points are whole by default.
    """
    _, height, width, _ = images.shape
    side = max(height, width) + 2 * _MARGIN
    long = side + math.ceil(_LEAST_SHEAR * side) + 2 * _MARGIN
    above, before = (side - height) // 2, (side - width) // 2
    shears = _find_shears(*_linear(points, len(images), side, above, before), side, long)
    row, column = _results_of(shears, len(images), side)
    found = points((row - above).astype(jnp.float32), (column - before).astype(jnp.float32))
    y, x = jnp.clip(found.y, 0, height - 1), jnp.clip(found.x, 0, width - 1)
    reach = _ROUNDED_REACH if rounded else _LINEAR_REACH
    canvas = _moved(_nearby(images, y, x, above, before, reach), shears, long)
    above, before = above - _MARGIN, before - _MARGIN
    return canvas[:, above : above + height, before : before + width]


def _linear(points: Callable[..., Points], count: int, side: int, above: int, before: int) -> tuple[Line, Line]:
    """Returns where points come from, across and down, all seen from the middle of the canvas."""
    middle = (side - 1) / 2
    down, across = middle - above, middle - before
    y = jnp.asarray([down, down, down + side], jnp.float32)[:, None]
    x = jnp.asarray([across, across + side, across], jnp.float32)[:, None]
    found = points(*(jnp.broadcast_to(at, (count, 3, 1)) for at in (y, x)), rounded=False)

    def line(at: Float32[Array, "b 3"], start: float) -> Line:
        return Line((at[:, 1] - at[:, 0]) / side, (at[:, 2] - at[:, 0]) / side, at[:, 0] - start)

    return line(found.x[..., 0], across), line(found.y[..., 0], down)


def _find_shears(across: Line, down: Line, side: int, long: int) -> Shears:
    """Returns the shears by which pixels come nearest to where they belong, of all four turns and both orders.

    Turned, the map is [[a, b], [c, d]] with a · d − b · c = 1. That is a shear along rows by (a − 1) / c, after one
    along columns by c, after one along rows by what is missing to b. Columns, rows, columns is the same of what has its
    rows and columns swapped before and after.
    """
    turns = [(quarters, back) for quarters in range(4) for back in (False, True)]
    found, costs = [], []
    for quarters, back in turns:
        (a, b, to_x), (c, d, to_y) = _turned(across, down, quarters, back)
        still = jnp.abs(c) < 0.1 / side
        first = jnp.where(still, b, (a - 1) / jnp.where(still, 1, c))
        third = b - first * d
        least, most = jnp.minimum(jnp.abs(first), jnp.abs(third)), jnp.maximum(jnp.abs(first), jnp.abs(third))
        wrong = jnp.where(still, jnp.abs(a - 1) + jnp.abs(d - 1), 0.0)
        costs.append(2 * least + most + 0.5 * jnp.abs(c) + side * wrong)
        found.append(jnp.stack([first, to_x - first * to_y, c, to_y, third]))
    best = jnp.argmin(jnp.stack(costs), 0)
    first, to_x, second, to_y, third = jnp.take_along_axis(jnp.stack(found), best[None, None], 0)[0]
    # Columns between are numbered from where the results' begin, or the image's, whichever are more in one place.
    centre = (side - 1) / 2 - jnp.where(jnp.abs(third) <= jnp.abs(first), 0.0, to_x)
    start = jnp.clip(jnp.floor(centre - (long - 1) / 2), -8 * side, 8 * side).astype(jnp.int32)
    bits = 27 - side.bit_length()  # what a line moves, in these parts of a pixel, stays below 2^31
    slopes = [_parts(slope, 2, bits) for slope in (first, second, third)]
    offsets = [_parts(offset, 4 * side, bits) for offset in (to_x, to_y, jnp.zeros_like(third))]
    flags = [
        chosen(jnp.asarray(each), best) for each in zip(*[(*_turn(*turn), turn[1]) for turn in turns], strict=True)
    ]
    # All that read these must agree to the bit: a compiler shall not compute them twice.
    slopes, offsets, flags, start = lax.optimization_barrier((slopes, offsets, flags, start))
    by_rows, by_columns, again = (Shear(*both, bits, side - 1) for both in zip(slopes, offsets, strict=True))
    mirrored, flipped, swapped, back = flags
    return Shears(mirrored, flipped, swapped, back, by_rows, by_columns, again, start)


def _parts(x: Float32[Array, " b"], most: int, bits: int) -> Int32[Array, " b"]:
    return jnp.round(jnp.clip(x, -most, most) * 2.0**bits).astype(jnp.int32)


def _turn(quarters: int, back: bool) -> tuple[bool, bool, bool]:
    """Returns whether columns are mirrored, rows are, and both then change places."""
    return quarters in (1, 2), quarters in (2, 3), (quarters in (1, 3)) != back


def _turned(across: Line, down: Line, quarters: int, back: bool) -> tuple[Line, Line]:
    """Returns the lines where the image was turned and, should rows and columns change places `back`, the result."""
    mirrored, flipped, swapped = _turn(quarters, back)
    if mirrored:
        across = Line(*(-x for x in across))
    if flipped:
        down = Line(*(-x for x in down))
    if swapped:
        across, down = down, across
    if back:
        across, down = (Line(line.by_y, line.by_x, line.offset) for line in (across, down))
    return across, down


def _results_of(shears: Shears, count: int, side: int) -> tuple[Places, Places]:
    """Returns the row and column of the result that each pixel of the canvas is moved to."""
    numbers = jnp.arange(side, dtype=jnp.int32)
    row = jnp.broadcast_to(numbers[:, None], (count, side, side))
    column = jnp.broadcast_to(numbers, (count, side, side))
    mirrored, flipped, swapped, back = (
        flags[:, None, None] for flags in (shears.mirrored, shears.flipped, shears.swapped, shears.swapped_back)
    )
    row, column = jnp.where(flipped, side - 1 - row, row), jnp.where(mirrored, side - 1 - column, column)
    row, column = jnp.where(swapped, column, row), jnp.where(swapped, row, column)
    column = column - shears.first(row)
    row = row - shears.second(column)
    column = column - shears.third(row)
    return jnp.where(back, column, row), jnp.where(back, row, column)


def _nearby(
    images: UInt8[Array, "b h w c"],
    y: Float32[Array, "b s s"],
    x: Float32[Array, "b s s"],
    above: int,
    before: int,
    reach: int,
) -> UInt8[Array, "b s s c"]:
    """Returns for each pixel of the canvas the image at a point that is within reach, as `sample_by_gathering` does.

    That is the first of the pixels in a row and, for each of the others, its share of the step to it: all of those up
    to the point, a part of the next, none of those beyond. Up to the part all are whole levels, so that it is what a
    blend of two gives. Nothing is chosen: a compiler may compute the point anew for each share, and differ.
    """
    _, height, width, channels = images.shape
    side = y.shape[1]
    margins = [(ahead + reach, side - ahead - length + reach) for ahead, length in ((above, height), (before, width))]
    padded = jnp.pad(images, ((0, 0), *margins, (0, 0)))
    numbers = jnp.arange(side, dtype=jnp.float32)
    offsets = y - (numbers[:, None] - above) + reach, x - (numbers - before) + reach
    # For each channel and kept, or a compiler makes an array of each share below.
    y, x = lax.optimization_barrier(tuple(jnp.broadcast_to(at[..., None], (*at.shape, channels)) for at in offsets))

    def blend(values: Sequence[Array], at: Array) -> Array:
        made = values[0]
        for number, (first, second) in enumerate(itertools.pairwise(values)):
            made = made + (second - first) * jnp.clip(at - number, 0, 1)
        return made

    def row(down: int) -> Array:
        pixels = [padded[:, down : down + side, right : right + side] for right in range(2 * reach + 1)]
        return blend([pixel.astype(jnp.float32) for pixel in pixels], x)

    return blend([row(down) for down in range(2 * reach + 1)], y).astype(jnp.uint8)


def _moved(canvas: UInt8[Array, "b s s c"], shears: Shears, long: int) -> UInt8[Array, "b t t c"]:
    """Returns the canvas with its pixels where they belong, as `_results_of` says, without its margins."""
    side = canvas.shape[1]
    inner = slice(_MARGIN, side - _MARGIN)
    mirrored, flipped, swapped, back = (
        flags[:, None, None, None] for flags in (shears.mirrored, shears.flipped, shears.swapped, shears.swapped_back)
    )
    canvas = lax.optimization_barrier(canvas)
    canvas = jnp.where(mirrored, canvas[:, :, ::-1], canvas)
    canvas = jnp.where(flipped, canvas[:, ::-1], canvas)
    canvas = jnp.where(swapped, jnp.swapaxes(canvas, 1, 2), canvas)
    canvas = lax.optimization_barrier(canvas)
    lines = jnp.broadcast_to(jnp.arange(side, dtype=jnp.int32), (len(canvas), side))
    # Both sides wrap around, so that every shear only changes places; columns between stand for numbers from `start`.
    start = shears.start[:, None]
    between = start + (jnp.arange(long, dtype=jnp.int32) - start) % long
    canvas = _rolled(canvas, shears.first(lines) % long, 2, long)
    canvas = _rolled(canvas, shears.second(between) % side, 1, side, inner)
    canvas = _rolled(canvas, shears.third(lines[:, inner]) % long, 2, long, inner)
    return jnp.where(back, jnp.swapaxes(canvas, 1, 2), canvas)


def _rolled(
    canvas: UInt8[Array, "b h w c"], amount: Int32[Array, "b n"], axis: int, length: int, kept: slice = slice(None)
) -> UInt8[Array, "b h2 w2 c"]:
    """Returns each row (axis 2) or column (axis 1), of this length, with what lies `amount` pixels ahead.

    In two digits: each is a choice among as many whole moves as a digit has values, in one pass.
    """
    base = math.isqrt(length - 1) + 1
    for step, digits in ((base, amount // base), (1, amount % base)):
        digit = jnp.expand_dims(digits, (axis, 3))
        rest = [(0, 0)] * 4
        rest[axis] = (0, length - canvas.shape[axis])
        twice = jnp.concatenate([jnp.pad(canvas, rest)] * 2, axis)
        first, end, _ = (kept if step == 1 else slice(None)).indices(length)
        moved = lax.slice_in_dim(twice, first, end, axis=axis)
        for value in range(1, -(-length // base) if step == base else base):
            there = lax.slice_in_dim(twice, value * step + first, value * step + end, axis=axis)
            moved = jnp.where(digit == value, there, moved)
        canvas = lax.optimization_barrier(moved)
    return canvas
