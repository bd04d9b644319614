"""Images shifted against a kernel, which the forms for a CPU are made of."""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnets.dtypes import widest
from jaxnets.models.conventions import Padding, Pair


def sum_of_shifts(x: Array, kernel: Array, stride: Pair, padding: Padding) -> Array:
    """A convolution of few channels, or a depthwise one (`kernel` `[i, j, 1, c]`), as one loop over its products."""
    return apart(partial(_sum_of_shifts, stride=stride, padding=padding), x, kernel)


def apart(function: Callable[..., Any], *arrays: Array) -> Any:
    """Returns `function(*arrays)`, which is computed once, by itself, and not before all arrays are there.

    XLA's CPU backend would write a sum, of shifted images for instance, into each of the loops that read it, and keep x
    for all of them until the last has run: a step of EfficientNet-Lite0 took a third more time and memory. A branch is
    the one thing that it does not look into. It is always taken, unless the last of the arrays begins with what is no
    number, and then neither is what would come out of it.
    """
    once = jax.jit(function)  # which traces it once, for its shapes and for the branch
    result = jax.eval_shape(once, *arrays)
    first = arrays[-1][(0,) * arrays[-1].ndim]

    def not_a_number(*_: Array) -> Any:
        return jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), result)

    return lax.cond(first == first, once, not_a_number, *arrays)


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
