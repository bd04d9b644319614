"""A warp in the form that a TPU runs fast: whole rows and columns move, and nothing is gathered.

All geometric ops keep areas, so that a turn by quarters, three shears and a translation make up any of them. Shears by
whole pixels, along rows, columns and rows again, bring each pixel of a canvas to one pixel of the result (Paeth 1986, A
fast algorithm for general raster rotation), a pixel or two away from where it belongs. Each pixel of the canvas
therefore first becomes what its pixel of the result shall be, which takes its own neighbours alone, and then is moved.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, UInt8

from jaxnets.recipe.augment.policy.choose import choose
from jaxnets.recipe.augment.policy.draws import chosen
from jaxnets.recipe.augment.policy.points import Points, spread

Places = Int32[Array, "b h w c"]
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
        slope, offset = spread(self.slope, line), spread(self.offset, line)
        return (slope * (2 * line - self.last) + 2 * offset + (1 << self.bits)) >> (self.bits + 1)


class Turn(NamedTuple):
    """What is done to a canvas before it is sheared, and undone of that in the end."""

    flipped: bool
    swapped: bool
    flipped_then: bool
    swapped_back: bool


# By no, one, two and three quarters: with rows and columns in their places, or changed so that columns are sheared
# first. One of them is left out by one quarter and one by two, where the others do.
_TURNS = (
    Turn(False, False, False, False),
    Turn(False, True, False, True),
    Turn(False, True, True, False),
    Turn(True, True, True, True),
    Turn(True, True, False, False),
    Turn(True, False, False, True),
)


class Shears(NamedTuple):
    """What makes the result of a canvas: it is turned, moved, and turned back."""

    flipped: Flags  # upside down, first of all
    swapped: Flags  # rows become columns
    flipped_then: Flags  # upside down, once more: left to right where rows and columns changed places
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
    b, height, width, channels = images.shape
    side = max(height, width) + 2 * _MARGIN
    long = side + math.ceil(_LEAST_SHEAR * side) + 2 * _MARGIN
    above, before = (side - height) // 2, (side - width) // 2
    shears = _find_shears(*_linear(points, b, side, above, before), side, long)
    row, column = _results_of(shears, (b, side, side, channels))
    found = points((row - above).astype(jnp.float32), (column - before).astype(jnp.float32))
    y, x = jnp.clip(found.y, 0, height - 1), jnp.clip(found.x, 0, width - 1)
    reach = _ROUNDED_REACH if rounded else _LINEAR_REACH
    canvas = _moved(_nearby(images, y, x, above, before, reach), shears, long)
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
    found, costs = [], []
    for turn in _TURNS:
        (a, b, to_x), (c, d, to_y) = _turned(across, down, turn)
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
    flags = [chosen(jnp.asarray(each), best) for each in zip(*_TURNS, strict=True)]
    # All that read these must agree to the bit: a compiler shall not compute them twice.
    slopes, offsets, flags, start = lax.optimization_barrier((slopes, offsets, flags, start))
    by_rows, by_columns, again = (Shear(*both, bits, side - 1) for both in zip(slopes, offsets, strict=True))
    flipped, swapped, flipped_then, back = flags
    return Shears(flipped, swapped, flipped_then, back, by_rows, by_columns, again, start)


def _parts(x: Float32[Array, " b"], most: int, bits: int) -> Int32[Array, " b"]:
    return jnp.round(jnp.clip(x, -most, most) * 2.0**bits).astype(jnp.int32)


def _turned(across: Line, down: Line, turn: Turn) -> tuple[Line, Line]:
    """Returns the lines where the image was turned and, should rows and columns change places `back`, the result."""
    if turn.flipped:
        down = Line(*(-x for x in down))
    if turn.swapped:
        across, down = down, across
    if turn.flipped_then:
        down = Line(*(-x for x in down))
    if turn.swapped_back:
        across, down = (Line(line.by_y, line.by_x, line.offset) for line in (across, down))
    return across, down


def _results_of(shears: Shears, shape: tuple[int, int, int, int]) -> tuple[Places, Places]:
    """Returns the row and column of the result that each pixel of the canvas is moved to.

    For each of its channels: all that is made of these can then be computed where it is needed, and none is an array
    of its own in between.
    """
    side = shape[1]
    row, column = (lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (1, 2))
    flipped, swapped, flipped_then, back = (
        spread(flags, row) for flags in (shears.flipped, shears.swapped, shears.flipped_then, shears.swapped_back)
    )
    row = jnp.where(flipped, side - 1 - row, row)
    row, column = jnp.where(swapped, column, row), jnp.where(swapped, row, column)
    row = jnp.where(flipped_then, side - 1 - row, row)
    column = column - shears.first(row)
    row = row - shears.second(column)
    column = column - shears.third(row)
    return jnp.where(back, column, row), jnp.where(back, row, column)


def _nearby(
    images: UInt8[Array, "b h w c"],
    y: Float32[Array, "b s s c"],
    x: Float32[Array, "b s s c"],
    above: int,
    before: int,
    reach: int,
) -> UInt8[Array, "b s s c"]:
    """Returns for each pixel of the canvas the image at a point that is within reach, as `sample_by_gathering` does.

    That is the first of the pixels in a row and, for each of the others, its share of the step to it: all of those up
    to the point, a part of the next, none of those beyond. Up to the part all are whole levels, so that it is what a
    blend of two gives. Nothing is chosen: a compiler may compute the point anew for each share, and differ.
    """
    _, height, width, _ = images.shape
    side = y.shape[1]
    numbers = jnp.arange(side, dtype=jnp.float32)
    y, x = y - (numbers[:, None, None] - above) + reach, x - (numbers[:, None] - before) + reach

    def blend(values: Sequence[Array], at: Array) -> Array:
        made = values[0]
        for number, (first, second) in enumerate(itertools.pairwise(values)):
            made = made + (second - first) * jnp.clip(at - number, 0, 1)
        return made

    def pixel(down: int, right: int) -> Array:
        top, left = above + reach - down, before + reach - right
        around = [(0, 0, 0), (top, side - height - top, 0), (left, side - width - left, 0), (0, 0, 0)]
        return lax.pad(images, jnp.zeros((), images.dtype), around).astype(jnp.float32)

    def row(down: int) -> Array:
        return blend([pixel(down, right) for right in range(2 * reach + 1)], x)

    return blend([row(down) for down in range(2 * reach + 1)], y).astype(jnp.uint8)


def _moved(canvas: UInt8[Array, "b s s c"], shears: Shears, long: int) -> UInt8[Array, "b s s c"]:
    """Returns the canvas with its pixels where they belong, as `_results_of` says."""
    side = canvas.shape[1]
    flipped, swapped, flipped_then, back = (
        spread(flags, canvas) for flags in (shears.flipped, shears.swapped, shears.flipped_then, shears.swapped_back)
    )
    canvas = lax.optimization_barrier(canvas)
    canvas = lax.optimization_barrier(jnp.where(flipped, canvas[:, ::-1], canvas))
    canvas = lax.optimization_barrier(jnp.where(swapped, jnp.swapaxes(canvas, 1, 2), canvas))
    canvas = jnp.where(flipped_then, canvas[:, ::-1], canvas)
    lines = jnp.broadcast_to(jnp.arange(side, dtype=jnp.int32), (len(canvas), side))
    # Both sides wrap around, so that every shear only changes places; columns between stand for numbers from `start`.
    start = shears.start[:, None]
    between = start + (jnp.arange(long, dtype=jnp.int32) - start) % long
    canvas = _rolled(canvas, shears.first(lines) % long, 2, long)
    canvas = _rolled(canvas, shears.second(between) % side, 1, side)
    canvas = lax.optimization_barrier(_rolled(canvas, shears.third(lines) % long, 2, long))
    canvas = lax.optimization_barrier(canvas[:, :, :side])
    return jnp.where(back, jnp.swapaxes(canvas, 1, 2), canvas)


def _rolled(
    canvas: UInt8[Array, "b h w c"], amount: Int32[Array, "b n"], axis: int, length: int
) -> UInt8[Array, "b h2 w2 c"]:
    """Returns each row (axis 2) or column (axis 1), of this length, with what lies `amount` pixels ahead.

    In two digits: each is a choice among as many whole moves as a digit has values, in one pass.
    """
    base = 1 << length.bit_length() // 2
    for step, digits in ((base, amount // base), (1, amount % base)):
        canvas = lax.optimization_barrier(canvas)
        windows = [_from(canvas, axis, length, move) for move in range(0, length if step == base else base, step)]
        canvas = choose(jnp.expand_dims(digits, (axis, 3)), windows)
    return canvas


def _from(canvas: UInt8[Array, "b h w c"], axis: int, length: int, first: int) -> UInt8[Array, "b h2 w2 c"]:
    """Returns a canvas, filled up to a length, that begins with this place and goes on with those before it.

    It is padded on either side and not cut, of which a compiler would say that it reads the canvas for each cut.
    """
    size, ends = canvas.shape[axis], []
    for start in (0, length):
        if start < first + length and start + size > first:
            around = [(0, 0, 0)] * 4
            around[axis] = (start - first, first + length - start - size, 0)
            ends.append(lax.pad(canvas, jnp.zeros((), canvas.dtype), around))
    return functools.reduce(jnp.bitwise_or, ends)
