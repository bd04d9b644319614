"""Gaussian blur as Pillow's."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, UInt8, UInt32

MOST = 2.4  # standard deviation; from 2.45 on, a box has more than the five pixels that are read here
_PASSES = 3
_ONE = 2**24  # what weights add up to


def gaussian_blur(images: UInt8[Array, "b h w c"], radius: Float32[Array, " b"]) -> UInt8[Array, "b h w c"]:
    """Returns the images blurred as Pillow's `ImageFilter.GaussianBlur(radius)`: three box blurs across, three down.

    A box has a whole number of pixels and a share of the next on both sides (Gwosdek et al. 2011, equations 7, 11 and
    14), the border's pixels are repeated, and each pass is rounded, in whole numbers. Pillow's own, but for a weight's
    last bits: at most a level apart.

    Args:
        radius: standard deviation of each image's Gaussian in pixels, at most `MOST`.
    """
    weights = box_weights(radius)
    for axis in (2, 1):
        images = jax.lax.fori_loop(0, _PASSES, lambda _, x, axis=axis: _box_blur(x, weights, axis), images)
    return images


def box_weights(radius: Float32[Array, " b"]) -> UInt32[Array, "b 3"]:
    """Returns the weights of a box's middle, its next and its second next pixels, on a scale of 2²⁴."""
    variance = radius * radius / _PASSES
    whole = jnp.floor((jnp.sqrt(12 * variance + 1) - 1) / 2)  # pixels to each side of the middle
    share = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    full = jnp.floor(_ONE / (2 * (whole + share) + 1)).astype(jnp.uint32)
    part = (_ONE - (2 * whole.astype(jnp.uint32) + 1) * full) // 2
    none = jnp.zeros_like(full)
    return jnp.stack([full, jnp.where(whole < 1, part, full), jnp.where(whole < 1, none, part)], -1)


def _box_blur(images: UInt8[Array, "b h w c"], weights: UInt32[Array, "b 3"], axis: int) -> UInt8[Array, "b h w c"]:
    size = images.shape[axis]
    padded = jnp.pad(images, [(2, 2) if each == axis else (0, 0) for each in range(4)], mode="edge")
    tap = [jax.lax.slice_in_dim(padded, i, i + size, axis=axis).astype(jnp.uint32) for i in range(5)]
    middle, near, far = (weights[:, i, None, None, None] for i in range(3))
    total = middle * tap[2] + near * (tap[1] + tap[3]) + far * (tap[0] + tap[4])
    return ((total + _ONE // 2) >> 24).astype(jnp.uint8)
