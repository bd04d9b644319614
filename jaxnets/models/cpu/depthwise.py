"""Depthwise convolutions as sums over shifted images.

XLA's CPU backend runs a convolution in groups 40 to 60 times slower than the same sum over shifted images, which it
makes one loop over contiguous channels, shared among the threads.
"""

from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnets.dtypes import widest
from jaxnets.models.conventions import Padding, Pair
from jaxnets.models.cpu.shifts import pad, shifts, sum_of_shifts

_ROWS = 8  # whose products a depthwise kernel's gradient sums in registers
_CACHED = 1 << 18  # numbers of dy that a depthwise kernel's gradient takes at a time


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise(x: Array, kernel: Array, stride: Pair, padding: Padding) -> Array:
    return sum_of_shifts(x, kernel, stride, padding)


def _forward(x: Array, kernel: Array, stride: Pair, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    return sum_of_shifts(x, kernel, stride, padding), (x, kernel)


def _backward(stride: Pair, padding: Padding, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    return (
        _input_gradient(dy, kernel, (x.shape[1], x.shape[2]), stride, padding),
        _kernel_gradient(x, dy, kernel.shape, stride, padding),
    )


depthwise.defvjp(_forward, _backward)


def _input_gradient(dy: Array, kernel: Array, size: Pair, stride: Pair, padding: Padding) -> Array:
    """The pixels of x that share their place modulo the stride meet the same part of the kernel, turned round."""
    lows = (padding[0][0], padding[1][0])
    lengths = [-(-n // s) for n, s in zip(size, stride, strict=True)]
    # Every pixel needs a part of the kernel, if only of zeros.
    kernel = jnp.pad(kernel, [(0, max(0, s - k)) for k, s in zip(kernel.shape, stride, strict=False)] + [(0, 0)] * 2)

    def phase(place: Pair) -> Array:
        firsts = [(at + low) % s for at, low, s in zip(place, lows, stride, strict=True)]
        part = kernel[firsts[0] :: stride[0], firsts[1] :: stride[1]][::-1, ::-1]
        pads = []
        for k, at, low, s, length, out in zip(part.shape, place, lows, stride, lengths, dy.shape[1:3]):  # noqa: B905
            before = k - 1 - (at + low) // s
            pads.append((before, length + k - 1 - out - before))
        return sum_of_shifts(dy, part, (1, 1), (pads[0], pads[1]))

    phases = [jnp.stack([phase((a, b)) for b in range(stride[1])], 3) for a in range(stride[0])]
    dx = jnp.stack(phases, 2)  # [b, row, place in stride, column, place in stride, c]
    dx = dx.reshape(len(dy), lengths[0] * stride[0], lengths[1] * stride[1], dy.shape[3])
    return dx[:, : size[0], : size[1]]


def _kernel_gradient(x: Array, dy: Array, shape: tuple[int, ...], stride: Pair, padding: Padding) -> Array:
    """Sums x · dy over the places: first over some rows in registers, then over what is left as a product with ones.

    A sum over rows, columns and images at once would not be vectorised over the channels. The kernel's rows are a loop,
    for their code to be compiled once.
    """
    wide = widest(x.dtype)
    rows, columns, _, channels = shape
    together = min(_ROWS, dy.shape[1])
    blocks_of_rows = -(-dy.shape[1] // together)
    missing = blocks_of_rows * together - dy.shape[1]  # rows of zeros that fill the last block
    height = (dy.shape[1] + missing - 1) * stride[0] + rows
    width = (dy.shape[2] - 1) * stride[1] + columns
    (top, _), (left, _) = padding
    images = max(n for n in range(1, len(x) + 1) if len(x) % n == 0 and (n == 1 or n * dy[0].size <= _CACHED))

    def add_block(n: Array, total: Array) -> Array:
        part_x, part_dy = (lax.dynamic_slice_in_dim(a, n * images, images) for a in (x, dy))
        part_x = pad(part_x, (top, height - x.shape[1] - top), (left, width - x.shape[2] - left))
        part_dy = pad(part_dy, (0, missing), (0, 0)).astype(wide)

        def add_row(i: Array, total: Array) -> Array:
            met = lax.dynamic_slice_in_dim(part_x, i, height - rows + 1, axis=1)  # by this row of the kernel
            sums = []
            for _, place in shifts(met, (1, columns), stride):
                products = [place[:, r::together].astype(wide) * part_dy[:, r::together] for r in range(together)]
                partial_sums = lax.optimization_barrier(reduce(jnp.add, products).reshape(-1, channels))
                sums.append(jnp.ones(len(partial_sums), wide) @ partial_sums)
            return total.at[i].add(jnp.stack(sums))

        return lax.fori_loop(0, rows, add_row, total)

    total = lax.fori_loop(0, len(x) // images, add_block, jnp.zeros((rows, columns, channels), wide))
    return total.reshape(shape).astype(x.dtype)
