"""Grey of an image, and blends of an image with a plainer one, as Pillow computes them on uint8."""

import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, UInt8

_GRID = 2**13  # factors are multiples of 1 / _GRID, of which float32 holds every product with −255 … 255 exactly


def grey_of(images: UInt8[Array, "*b h w c"]) -> UInt8[Array, "*b h w 1"]:
    """Returns the grey levels of RGB images, as Pillow's `convert("L")` rounds them; grey ones are what they are."""
    if images.shape[-1] == 1:
        return images
    red, green, blue = (images[..., i : i + 1].astype(jnp.int32) for i in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(jnp.uint8)  # ITU-R 601-2, of 2¹⁶


def mean_grey(images: UInt8[Array, "b h w c"]) -> Int32[Array, " b"]:
    """Returns the mean grey level of each image, rounded, as Pillow's `ImageEnhance.Contrast` takes it."""
    pixels = images.shape[1] * images.shape[2]  # up to 2²⁴ of them, a uint32 holds their sum
    total = grey_of(images).astype(jnp.uint32).sum((1, 2, 3), dtype=jnp.uint32)
    whole, rest = total // pixels, total % pixels
    return jnp.where(2 * rest >= pixels, whole + 1, whole).astype(jnp.int32)


def on_grid(factor: Float32[Array, "..."]) -> Float32[Array, "..."]:
    """Returns factors rounded so that blends by them come out the same on every device, whatever it fuses."""
    return jnp.round(factor * _GRID) / _GRID


def blend(
    plain: Float32[Array, "b _ _ _"], images: UInt8[Array, "b h w c"], factor: Float32[Array, " b"]
) -> UInt8[Array, "b h w c"]:
    """Returns plain + factor · (image − plain), clipped and rounded down: Pillow's `Image.blend`.

    Args:
        plain: what an image becomes with the factor 0, whole levels.
        images: what it is with the factor 1.
        factor: of `on_grid`, for each image; above 1 it is made less like the plain one.
    """
    blended = plain + factor[:, None, None, None] * (images.astype(jnp.float32) - plain)
    return jnp.floor(jnp.clip(blended, 0, 255)).astype(jnp.uint8)
