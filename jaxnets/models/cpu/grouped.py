"""Convolutions in groups as products; XLA's CPU backend runs its own of them 40 to 60 times slower."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnets.dtypes import widest
from jaxnets.models.conventions import Padding, Pair
from jaxnets.models.cpu.shifts import pad, shifts

_GROUPED_CHANNELS = 32  # at least so many at a time, or the products of a grouped convolution are too small


def grouped(x: Array, kernel: Array, stride: Pair, padding: Padding, groups: int) -> Array:
    """A convolution in groups as one product for some groups at a time, with zeros where two groups meet.

    It takes image by image, so that the patches stay in cache, and computes them again for the gradients.
    """
    rows, columns, channels, _ = kernel.shape
    features = kernel.shape[3] // groups
    together = max(n for n in range(1, groups + 1) if groups % n == 0 and (n == 1 or n * channels <= _GROUPED_CHANNELS))
    chunks = groups // together
    own = jnp.eye(together, dtype=widest(x.dtype))
    kernel = kernel.astype(own.dtype)
    # [chunk, place in the kernel, group of x, channel, group of y, feature], zero unless the groups are the same
    by_group = kernel.reshape(rows * columns, channels, chunks, together, features).astype(own.dtype)
    weights = jnp.einsum("pcngf,hg->nphcgf", by_group, own)
    weights = weights.reshape(chunks, rows * columns * together * channels, together * features)

    @jax.checkpoint
    def one(image: Array, weights: Array) -> Array:
        padded = pad(image[None], *padding)
        by_chunk = padded.reshape(*padded.shape[1:3], chunks, -1).transpose(2, 0, 1, 3)
        patches = jnp.concatenate([place for _, place in shifts(by_chunk, (rows, columns), stride)], -1)
        _, height, width, _ = patches.shape
        y = lax.batch_matmul(patches.reshape(chunks, height * width, -1), weights.astype(x.dtype))
        return y.transpose(1, 0, 2).reshape(height, width, groups * features)

    return lax.map(lambda image: one(image, weights), x)
