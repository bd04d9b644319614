"""Images shifted against a kernel, which the forms for a CPU are made of."""

from collections.abc import Callable
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnets.dtypes import widest
from jaxnets.models.conventions import Padding, Pair


def sum_of_shifts(x: Array, kernel: Array, stride: Pair, padding: Padding) -> Array:
    """A convolution of few channels, or a depthwise one (`kernel` `[i, j, 1, c]`), as one loop over its products."""
    return apart(partial(_sum_of_shifts, stride=stride, padding=padding), x, kernel)


def apart(function: Callable[[Array, Array], Array], x: Array, kernel: Array) -> Array:
    """Returns `function(x, kernel)`, which is computed once and by itself.

    XLA's CPU backend would write a sum, of shifted images for instance, into each of the loops that read it, and keep x
    for all of them until the last has run: a step of EfficientNet-Lite0 took a third more time and memory. A branch is
    the one thing that it does not look into. It is always taken, unless a weight is no number, and then neither is what
    would come out of it.
    """
    result = jax.eval_shape(function, x, kernel)
    is_number = kernel[0, 0, 0, 0] == kernel[0, 0, 0, 0]
    return lax.cond(is_number, function, lambda *_: jnp.full(result.shape, jnp.nan, result.dtype), x, kernel)


def _sum_of_shifts(x: Array, kernel: Array, *, stride: Pair, padding: Padding) -> Array:
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
