"""Boxes of whole pixels, as masks."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32


def covered(
    top: Int32[Array, "*n"],
    bottom: Int32[Array, "*n"],
    left: Int32[Array, "*n"],
    right: Int32[Array, "*n"],
    height: int,
    width: int,
) -> Bool[Array, "*n {height} {width}"]:
    """Returns which pixels lie in each box, from `top` to before `bottom` and from `left` to before `right`.

    What reaches beyond the image is clipped at its border, and a box that ends before it begins covers nothing.
    """
    row, column = jnp.arange(height, dtype=jnp.int32), jnp.arange(width, dtype=jnp.int32)
    down = (row >= top[..., None]) & (row < bottom[..., None])
    across = (column >= left[..., None]) & (column < right[..., None])
    return down[..., :, None] & across[..., None, :]


def around(
    centre: Int32[Array, "*n"], length: Int32[Array, "*n"], pixels: int
) -> tuple[Int32[Array, "*n"], Int32[Array, "*n"]]:
    """Returns where a stretch of this length about a pixel begins and ends, clipped to `pixels`; odd ones end later."""
    start, stop = centre - length // 2, centre + (length + 1) // 2
    return jnp.clip(start, 0, pixels), jnp.clip(stop, 0, pixels)
