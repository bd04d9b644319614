"""Counting levels and looking them up, in the form that the platform runs fast; the values agree everywhere.

A CPU and a GPU scatter and gather. A TPU does both an element at a time, and multiplies matrices instead: with a level
split into two digits of base 16, counts are the product of two one-hot matrices, and so is a lookup.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int32, UInt8


def histogram(images: UInt8[Array, "b h w c"]) -> Int32[Array, "b c 256"]:
    """Returns how often each level is there, of each image and channel."""
    return lax.platform_dependent(images, tpu=count_by_products, default=count_by_scattering)


def lookup(images: UInt8[Array, "b h w c"], tables: Int32[Array, "b c 256"]) -> UInt8[Array, "b h w c"]:
    """Returns what each level becomes by its image's and channel's table, whose entries are 0 … 255."""
    return lax.platform_dependent(images, tables, tpu=look_up_by_products, default=look_up_by_gathering)


def count_by_scattering(images: UInt8[Array, "b h w c"]) -> Int32[Array, "b c 256"]:
    b, h, w, c = images.shape
    places = images.reshape(b, h * w, c).astype(jnp.int32) + 256 * jnp.arange(c, dtype=jnp.int32)
    rows = jnp.arange(b, dtype=jnp.int32)[:, None, None]
    return jnp.zeros((b, 256 * c), jnp.int32).at[rows, places].add(1).reshape(b, c, 256)


def look_up_by_gathering(images: UInt8[Array, "b h w c"], tables: Int32[Array, "b c 256"]) -> UInt8[Array, "b h w c"]:
    b, _, _, c = images.shape
    offsets = 256 * jnp.arange(c, dtype=jnp.int32)
    places = (images.astype(jnp.int32) + offsets).reshape(b, -1)
    flat = tables.astype(jnp.uint8).reshape(b, 256 * c)
    return jnp.take_along_axis(flat, places, axis=1, mode="clip").reshape(images.shape)


def count_by_products(images: UInt8[Array, "b h w c"]) -> Int32[Array, "b c 256"]:
    b, _, _, c = images.shape
    high, low = _digits(images)
    counts = jnp.einsum("bhwcm,bhwcn->bcmn", high, low, preferred_element_type=jnp.float32)
    return counts.reshape(b, c, 256).astype(jnp.int32)


def look_up_by_products(images: UInt8[Array, "b h w c"], tables: Int32[Array, "b c 256"]) -> UInt8[Array, "b h w c"]:
    b, _, _, c = images.shape
    high, low = _digits(images)
    entries = tables.reshape(b, c, 16, 16).astype(jnp.bfloat16)  # whole numbers up to 256 are exact
    rows = jnp.einsum("bhwcn,bcmn->bhwcm", low, entries, preferred_element_type=jnp.bfloat16)
    return jnp.where(high > 0, rows, jnp.bfloat16(0)).max(-1).astype(jnp.uint8)


def _digits(images: UInt8[Array, "b h w c"]) -> tuple[Array, Array]:
    """Returns the higher and the lower digit of each level, one-hot."""
    digits = jnp.arange(16, dtype=jnp.uint8)
    high, low = (images >> 4)[..., None], (images & 15)[..., None]
    return (high == digits).astype(jnp.bfloat16), (low == digits).astype(jnp.bfloat16)
