"""What each level of each channel of each image becomes: one table of 256 entries, whichever op was drawn."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32

from jaxnets.recipe.augment.policy.blend import blend
from jaxnets.recipe.augment.policy.layer import Kind, Layer

_LEVELS = np.arange(256, dtype=np.int32)
Table = Int32[Array, "b c 256"]


def tables(layer: Layer, histogram: Int32[Array, "b c 256"], grey: Int32[Array, " b"]) -> Table:
    """Returns the tables; of what no table can do, the identity.

    Args:
        layer: the op of each image.
        histogram: how often each level is there.
        grey: what contrast blends with.
    """
    kind, amount = layer.kind[:, None, None], layer.amount[:, None, None]
    value = jnp.broadcast_to(_LEVELS, histogram.shape)
    exact = value.astype(jnp.float32)
    whole = amount.astype(jnp.int32)
    shift = 8 - jnp.clip(whole, 0, 8)
    lesser = jnp.where(kind == Kind.CONTRAST, grey.astype(jnp.float32)[:, None, None], 0.0)
    threshold = jnp.where(kind == Kind.INVERT, 0.0, amount)
    made = {
        Kind.POSTERIZE: (value >> shift) << shift,
        Kind.SOLARIZE: jnp.where(exact < threshold, value, 255 - value),
        Kind.SOLARIZE_ADD: jnp.where(value < 128, jnp.clip(value + whole, 0, 255), value),
        Kind.AUTOCONTRAST: autocontrast(histogram),
        Kind.EQUALIZE: equalize(histogram),
        Kind.CONTRAST: blend(lesser, exact, amount).astype(jnp.int32),
    }
    like = {Kind.INVERT: Kind.SOLARIZE, Kind.BRIGHTNESS: Kind.CONTRAST}
    for name, table in made.items():
        drawn = kind == name
        for other in (other for other, same in like.items() if same == name):
            drawn |= kind == other
        value = jnp.where(drawn, table, value)
    return value


def equalize(histogram: Int32[Array, "b c 256"]) -> Table:
    """Returns the tables that make all levels about equally frequent, in whole steps as Pillow's `equalize`."""
    last = jnp.where(_highest(histogram) == _LEVELS, histogram, 0).sum(-1, keepdims=True)
    step = (histogram.sum(-1, keepdims=True) - last) // 255
    below = jnp.cumsum(histogram, -1) - histogram
    table = jnp.clip((below + step // 2) // jnp.maximum(step, 1), 0, 255)
    return jnp.where(step == 0, _LEVELS, table)


def autocontrast(histogram: Int32[Array, "b c 256"]) -> Table:
    """Returns the tables that stretch the levels there are to 0 … 255, as Pillow's `autocontrast`.

    That is ⌊255 · (x − lowest) / (highest − lowest)⌋, but where the quotient is whole: Pillow computes it in float64 as
    x · scale − lowest · scale, and may land just below (`_falls_short`).
    """
    lowest, highest = jnp.where(histogram > 0, _LEVELS, 256).min(-1, keepdims=True), _highest(histogram)
    width = jnp.maximum(highest - lowest, 1)
    above = 255 * (jnp.asarray(_LEVELS) - lowest)
    quotient = above // width
    table = jnp.where((quotient * width == above) & _falls_short(lowest, width, quotient), quotient - 1, quotient)
    return jnp.where(highest > lowest, jnp.clip(table, 0, 255), _LEVELS)


def _highest(histogram: Int32[Array, "b c 256"]) -> Int32[Array, "b c 1"]:
    return jnp.where(histogram > 0, _LEVELS, -1).max(-1, keepdims=True)


# 255 / width in float64 is a whole number of 53 bits times a power of two: its lower 32 bits, and the power.
_SCALES = 255 / np.maximum(_LEVELS, 1).astype(np.float64)
_POWERS = np.floor(np.log2(_SCALES)).astype(np.int32)
_LOWER = (np.ldexp(_SCALES, 52 - _POWERS).astype(np.uint64) & 0xFFFFFFFF).astype(np.uint32)


def _falls_short(lowest: Int32[Array, "b c 1"], width: Int32[Array, "b c 1"], whole: Table) -> Array:
    """Tells for each level x whether x · scale − lowest · scale is below the whole number it stands for, in float64.

    No accelerator has float64. Errors of these products are far below 2³² units of their last place, and the whole
    number is a multiple of 2³² such units, so that the lower 32 bits, which wrap around, hold the difference.
    """
    scale = jnp.take(jnp.asarray(_LOWER), width)
    power = jnp.take(jnp.asarray(_POWERS), width)
    about = 255.0 / width.astype(jnp.float32)

    def product(factor: Int32[Array, "..."]) -> Array:
        """Returns the lower 32 bits of factor · scale, rounded to 53 bits, halves to even."""
        size = _exponent(factor.astype(jnp.float32) * about)
        dropped = jnp.clip(size - power, 0, 8).astype(jnp.uint32)
        exact = factor.astype(jnp.uint32) * scale
        half = (jnp.uint32(1) << dropped) >> 1
        odd = (exact >> dropped) & 1
        rounded = (exact + half - jnp.where(dropped > 0, 1 - odd, 0)) >> dropped << dropped
        return jnp.where(dropped > 0, rounded, exact)

    error = jax.lax.bitcast_convert_type(product(jnp.asarray(_LEVELS)) - product(lowest), jnp.int32)
    spacing = jnp.int32(1) << jnp.clip(_exponent(whole.astype(jnp.float32)) - power, 0, 8)
    return 2 * error < -spacing


def _exponent(x: Float32[Array, "..."]) -> Int32[Array, "..."]:
    return (jax.lax.bitcast_convert_type(x, jnp.int32) >> 23) - 127
