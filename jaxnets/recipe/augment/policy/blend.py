"""Blends of an image with a lesser one, as Pillow's ImageEnhance: the lesser ones, and the blend."""

import itertools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float32, Num, UInt8

Levels = Num[Array, "..."]  # whole numbers 0 … 255, of any dtype

# Pillow's weights of red, green and blue (ITU-R 601-2), in parts of 65536.
_LUMA = (19595.0, 38470.0, 7471.0)


def blend(lesser: Float32[Array, "..."], image: Float32[Array, "..."], factor: Float32[Array, "..."]) -> Levels:
    """Returns lesser + factor · (image − lesser), cut to 0 … 255 and rounded down: Pillow's `Image.blend`, to the bit.

    Pillow rounds the product, then the sum. A compiler may fuse both and round once, so that here the factor is split
    into its upper 16 bits and its lower 8: each product with a difference of 8 bits is exact, and their sum is the
    rounded product either way.
    """
    upper = jax.lax.bitcast_convert_type(factor, jnp.uint32) & jnp.uint32(0xFFFFFF00)
    high = jax.lax.bitcast_convert_type(upper, jnp.float32)
    difference = image - lesser
    product = high * difference + (factor - high) * difference
    return jnp.floor(jnp.clip(lesser + product, 0, 255))


def grey(image: Float32[Array, "b h w c"]) -> Float32[Array, "b h w 1"]:
    """Returns the brightness of each pixel as Pillow's conversion to "L"; a grey image is its own.

    All sums are below 2²⁴: exact in float32, in whatever order they are taken.
    """
    if image.shape[-1] == 1:
        return image
    red, green, blue = _LUMA
    weighed = red * image[..., :1] + green * image[..., 1:2] + blue * image[..., 2:3]
    return jnp.floor((weighed + 32768.0) * 2.0**-16)


def brightness(images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w 1"]:
    """Returns `grey` in whole numbers: a compiler for TPUs keeps an array of what is made of floats, in four bytes."""
    if images.shape[-1] == 1:
        return images
    red, green, blue = (int(weight) * images[..., i : i + 1].astype(jnp.int32) for i, weight in enumerate(_LUMA))
    return ((red + green + blue + 32768) >> 16).astype(jnp.uint8)


def smooth(images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
    """Returns the mean over 3×3 pixels in which the middle one counts five times, Pillow's `ImageFilter.SMOOTH`.

    It is rounded to the nearest (13ths are never ties); pixels at the border stay as they are.
    """
    height, width = images.shape[1:3]
    if min(height, width) < 3:
        return images
    inner = lax.platform_dependent(images, tpu=smooth_of_padded, default=smooth_of_slices)
    y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    border = (y == 0) | (y == height - 1) | (x == 0) | (x == width - 1)
    return jnp.where(border, images, inner)


def smooth_of_slices(images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
    """Returns the mean, and nothing of use at the border."""
    height, width = images.shape[1:3]
    inner = _mean([images[:, row : row + height - 2, column : column + width - 2] for row, column in _SQUARE])
    return jnp.pad(inner, ((0, 0), (1, 1), (1, 1), (0, 0)))


def smooth_of_padded(images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
    """Returns the same; a compiler for TPUs says of slices that each reads its pixels anew."""
    around = [((0, 0, 0), (2 - row, row, 0), (2 - column, column, 0), (0, 0, 0)) for row, column in _SQUARE]
    wide = _mean([lax.pad(images, jnp.zeros((), images.dtype), pads) for pads in around])
    return lax.optimization_barrier(wide)[:, 1:-1, 1:-1]


_SQUARE = tuple(itertools.product(range(3), range(3)))


def _mean(pixels: list[UInt8[Array, "b h w c"]]) -> UInt8[Array, "b h w c"]:
    block = 4.0 * pixels[4].astype(jnp.float32)
    for pixel in pixels:
        block += pixel.astype(jnp.float32)
    return jnp.floor(block * (1 / 13) + 0.5).astype(jnp.uint8)
