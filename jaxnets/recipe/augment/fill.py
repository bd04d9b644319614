"""What stands in the place of pixels that are taken out of an image."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Key, UInt8

# mean: of the data, which the model sees as 0; noise: of the data's mean and deviation, for each pixel by itself;
# colour: one such colour for the whole box; black.
Fill = Literal["mean", "noise", "colour", "black"]


def filling(
    fill: Fill,
    keys: Key[Array, " b"],
    images: UInt8[Array, "b h w c"],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> UInt8[Array, "b _ _ c"]:
    """Returns for each image what may stand in its place.

    Where timm and torchvision fill after normalisation, with 0 or N(0, 1), this is mean and mean + std · N(0, 1) as
    levels: rounded, and clipped to 0 … 255.

    Args:
        fill: with what.
        keys: what noise is drawn from.
        images: for their shape.
        mean: per channel, of pixels as 0…1.
        std: likewise.
    """
    size, height, width, channels = images.shape
    if fill == "black":
        return jnp.zeros((size, 1, 1, channels), jnp.uint8)
    if fill == "mean":
        deviation = jnp.zeros((size, 1, 1, channels), jnp.float32)
    else:
        shape = (height, width, channels) if fill == "noise" else (1, 1, channels)
        deviation = jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)
    return _levels(jnp.array(mean, jnp.float32) + jnp.array(std, jnp.float32) * deviation)


def _levels(x: Float32[Array, "..."]) -> UInt8[Array, "..."]:
    return jnp.clip(jnp.round(255 * x), 0, 255).astype(jnp.uint8)
