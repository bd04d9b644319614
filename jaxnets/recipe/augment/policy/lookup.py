"""Counting levels and looking them up, in the form that the platform runs fast; the values agree everywhere.

A CPU and a GPU scatter and gather, which a TPU does an element at a time. It counts by a product of matrices instead:
with a level split into two digits of base 16, counts are the product of two one-hot matrices. And it looks up by
choosing, for each bit of the level, one half of the entries that are left.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int32, UInt8

from jaxnets.recipe.augment.policy.choose import choose


def histogram(images: UInt8[Array, "b h w c"]) -> Int32[Array, "b c 256"]:
    """Returns how often each level is there, of each image and channel."""
    return lax.platform_dependent(images, tpu=count_by_products, default=count_by_scattering)


def lookup(images: UInt8[Array, "b h w c"], tables: Int32[Array, "b c 256"]) -> UInt8[Array, "b h w c"]:
    """Returns what each level becomes by its image's and channel's table, whose entries are 0 … 255."""
    return lax.platform_dependent(images, tables, tpu=look_up_by_choosing, default=look_up_by_gathering)


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
    digits = jnp.arange(16, dtype=jnp.uint8)
    level = images[..., None]  # and no digits of it, which a compiler would keep as arrays of their own
    high, low = (level ^ (digits << 4)) < 16, (level ^ digits) & 15 == 0
    high, low = high.astype(jnp.bfloat16), low.astype(jnp.bfloat16)
    counts = jnp.einsum("bhwcm,bhwcn->bcmn", high, low, preferred_element_type=jnp.float32)
    return counts.reshape(b, c, 256).astype(jnp.int32)


def look_up_by_choosing(images: UInt8[Array, "b h w c"], tables: Int32[Array, "b c 256"]) -> UInt8[Array, "b h w c"]:
    """Looks up a word of four entries by 63 choices, and takes the entry out of it."""
    b, _, _, c = images.shape
    level = images.astype(jnp.int32)
    words = (
        (tables.reshape(b, c, 64, 4) << jnp.array([0, 8, 16, 24], jnp.int32)).sum(-1, dtype=jnp.int32).swapaxes(1, 2)
    )
    options = [lax.broadcast_in_dim(word, level.shape, (0, 1, 3)) for word in lax.split(words, [1] * 64, 1)]
    word = choose(level >> 2, options)
    entry = lax.shift_right_logical(word, 8 * (level & 3)) & 255
    return entry.astype(jnp.uint8)
