"""Turns the hue of RGB images, through Pillow's HSV of 8 bits."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, UInt8


def turn_hue(images: UInt8[Array, "b h w 3"], turn: Int32[Array, " b"]) -> UInt8[Array, "b h w 3"]:
    """Returns images whose hue is turned by so many 255ths of the circle, as torchvision's `adjust_hue` of an image.

    Every turn, that by 0 too, goes through whole levels of hue, saturation and value, and back: a colour comes out up
    to a few levels off.
    """
    red, green, blue = (images[..., i : i + 1].astype(jnp.int32) for i in range(3))
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    saturation = _divide(255 * chroma, value)
    hue = (_hue(red, green, blue, value, chroma) + turn[:, None, None, None]) & 255
    # Red is least for two of the six sectors, greatest for two, and falls or rises between; green and blue lag behind.
    angle = 6 * hue + jnp.array([5, 3, 1], jnp.int32) * 255
    angle = jnp.where(angle >= 1530, angle - 1530, angle)
    angle = jnp.where(angle >= 1530, angle - 1530, angle)
    taken = saturation * jnp.clip(jnp.minimum(angle, 1020 - angle), 0, 255)
    return _divide(2 * value * (65025 - taken) + 65025, 130050).astype(jnp.uint8)  # rounded


def _hue(red: Array, green: Array, blue: Array, value: Array, chroma: Array) -> Int32[Array, "b h w 1"]:
    """Returns 255ths of the circle, rounded down, and where they are whole sometimes one less, as Pillow."""
    turned = jnp.where(
        value == red,
        green - blue,
        jnp.where(value == green, 2 * chroma + blue - red, 4 * chroma + red - green),
    )
    turned = 85 * jnp.where(turned < 0, turned + 6 * chroma, turned)  # of 2 · chroma
    level = _divide(turned, 2 * chroma)
    whole = level * 2 * chroma == turned
    word = jnp.select([level >> 5 == i for i in range(8)], [jnp.uint32(word) for word in _LESS])
    less = (word >> (level & 31).astype(jnp.uint32)) & 1
    return level - jnp.where(whole & (chroma > 0), less.astype(jnp.int32), 0)


def _divide(a: Int32[Array, "..."], b: Int32[Array, "..."] | int) -> Int32[Array, "..."]:
    """Returns a / b rounded down for numbers from 0 on whose quotient is below 2¹⁶, and a where b is 0.

    By floats, which are quicker to divide than integers, and then put right where they are one off.
    """
    divisor = jnp.maximum(jnp.asarray(b, jnp.int32), 1)
    quotient = (a.astype(jnp.float32) / divisor.astype(jnp.float32)).astype(jnp.int32)
    rest = a - quotient * divisor
    return jnp.where(rest < 0, quotient - 1, jnp.where(rest >= divisor, quotient + 1, quotient))


def _words() -> tuple[int, ...]:
    """Returns 256 bits in words of 32: which hues Pillow takes for one less where they are whole levels.

    It computes them in float32 and float64 by turns, which is done again here for the one share of the mid channel
    that gives each level.
    """
    level = np.arange(255)
    sixths = 6 * level / 255
    sector = sixths.astype(int)  # of six, from red on
    rising = sector % 2 == 0  # the mid channel, towards the next primary colour
    share = np.where(rising, sector + 1 - sixths, sixths - sector).astype(np.float32)  # (greatest − mid) / chroma
    offset = np.where(sector == 5, -1, np.where(rising, sector + 1, sector))
    turned = (offset + np.where(rising, -1, 1) * share.astype(np.float64)).astype(np.float32)
    hue = np.fmod(turned.astype(np.float64) / 6 + 1, 1).astype(np.float32)
    less = (hue.astype(np.float64) * 255).astype(int) < level
    return tuple(int(word) for word in np.packbits(np.append(less, False), bitorder="little").view("<u4"))


_LESS = _words()
