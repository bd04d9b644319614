"""Images shifted against a kernel, which the forms for a CPU are made of."""

from functools import reduce

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnets.dtypes import widest
from jaxnets.models.conventions import Padding, Pair


def sum_of_shifts(x: Array, kernel: Array, stride: Pair, padding: Padding) -> Array:
    """A convolution of few channels, or a depthwise one (`kernel` `[i, j, 1, c]`), as one loop over its products."""
    rows, columns, channels, _ = kernel.shape
    wide = widest(x.dtype)
    padded, weights = pad(x, *padding), kernel.astype(wide)
    inputs = [padded] if channels == 1 else [padded[..., n : n + 1] for n in range(channels)]
    terms = [
        shifted.astype(wide) * weights[i, j, n]
        for n, channel in enumerate(inputs)
        for (i, j), shifted in shifts(channel, (rows, columns), stride)
    ]
    return reduce(jnp.add, terms).astype(x.dtype)


def shifts(padded: Array, kernel: Pair, stride: Pair) -> list[tuple[Pair, Array]]:
    """Returns for each place of the kernel the pixels of `padded` that it meets, `[b, h2, w2, c]`."""
    last = [(n - k) // s * s + 1 for n, k, s in zip(padded.shape[1:3], kernel, stride, strict=True)]
    return [
        ((i, j), padded[:, i : i + last[0] : stride[0], j : j + last[1] : stride[1]])
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]


def pad(x: Array, rows: Pair, columns: Pair) -> Array:
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)))
