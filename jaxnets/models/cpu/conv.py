"""Convolutions that see all channels, as XLA's CPU backend (JAX 0.10) runs them fast.

It has habits that shape what it gets here:

- it brings a convolution's dimensions into the order that it runs fast only outside of loops. What differentiation
  makes of a convolution has another order, and inside a loop runs 16 times slower. So each gradient is written as a
  convolution in the order NHWC, HWIO, NHWC, or as products.
- a product with a small result and a long sum, as the gradient of a kernel is, runs on one thread and wants its
  operands in cache. So that gradient is summed over blocks of images.
- copying the patches of a whole batch costs more than the product they are for, and so do the sums of Winograd's
  form where they go through memory: of large batches it takes as many images at a time as stay in cache. (A step of
  airbench_small at a batch of 512 takes 5 % less processor time; of small batches the loop costs more than it saves.)

Where several CPU devices share a batch (in tests, as a rule), the blocks make each of them compute the kernels'
gradient of the whole batch: right, and slow.
"""

from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxnets.dtypes import widest
from jaxnets.models.conventions import DIMENSIONS, Padding, Pair
from jaxnets.models.cpu.shifts import apart, pad, shifts, sum_of_shifts

_BLOCK = 8  # images whose patches stay in cache
_WINOGRAD_CHANNELS = 32  # from here on fewer products pay for the sums they need
_LARGE = 2**22  # numbers of a batch, from which on Winograd's form takes some of its images at a time
_CACHED = 2**18  # numbers of these; its sums are four times as many
_FEW_CHANNELS = 4  # up to here a sum over shifted images beats XLA's convolution


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def full(x: Array, kernel: Array, stride: Pair, padding: Padding) -> Array:
    return _forward(x, kernel, stride, padding)


def _full_forward(x: Array, kernel: Array, stride: Pair, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    return _forward(x, kernel, stride, padding), (x, kernel)


def _full_backward(stride: Pair, padding: Padding, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    return (
        _input_gradient(dy, kernel, (x.shape[1], x.shape[2]), stride, padding),
        _kernel_gradient(x, dy, kernel.shape, stride, padding),
    )


full.defvjp(_full_forward, _full_backward)


def _forward(x: Array, kernel: Array, stride: Pair, padding: Padding) -> Array:
    rows, columns, channels, features = kernel.shape
    if (rows, columns) == (1, 1) and padding == ((0, 0), (0, 0)):
        return x[:, :: stride[0], :: stride[1]] @ kernel[0, 0]
    if channels <= _FEW_CHANNELS and rows * columns <= 9:
        return sum_of_shifts(x, kernel, stride, padding)
    if (rows, columns) == (3, 3) and stride == (1, 1):
        exact = jnp.finfo(x.dtype).bits >= 32  # Winograd's sums lose too much in 16 bits
        if min(channels, features) >= _WINOGRAD_CHANNELS and exact:
            return _winograd_in_blocks(x, kernel, padding)
    return lax.conv_general_dilated(x, kernel, stride, padding, dimension_numbers=DIMENSIONS)


def _winograd_in_blocks(x: Array, kernel: Array, padding: Padding) -> Array:
    block = _block_of(len(x), x.shape[1] * x.shape[2] * max(kernel.shape[2:]))
    if block is None:
        return apart(partial(_winograd, padding=padding), x, kernel)
    y = lax.map(lambda some: _winograd(some, kernel, padding), x.reshape(-1, block, *x.shape[1:]))
    return y.reshape(len(x), *y.shape[2:])


def _block_of(batch: int, numbers: int) -> int | None:
    """Returns how many images of so many numbers are taken at a time; None: all, as there is no such part of them."""
    most = max(_CACHED // numbers, 1)
    if batch <= most or batch * numbers < _LARGE:
        return None
    block = max(size for size in range(1, most + 1) if batch % size == 0)
    return block if 4 * block >= most else None


def _winograd(x: Array, kernel: Array, padding: Padding) -> Array:
    """A 3×3 convolution at stride 1 as F(2×2, 3×3): 16 products for 4 results, in place of 36.

    Lavin & Gray 2016, section 4.1: Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A for each tile d of 4×4 pixels.
    """
    (top, bottom), (left, right) = padding
    batch, height, width, _ = x.shape
    out_height, out_width = height + top + bottom - 2, width + left + right - 2
    tile_rows, tile_columns = (out_height + 1) // 2, (out_width + 1) // 2
    x = pad(x, (top, 2 * tile_rows + 2 - height - top), (left, 2 * tile_columns + 2 - width - left))
    g = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], kernel.dtype)
    u = jnp.einsum("ai,bj,ijcf->abcf", g, g, kernel)

    def to_tile(d: list[Array]) -> list[Array]:  # Bᵀ d
        return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]

    def from_tile(m: list[Array]) -> list[Array]:  # Aᵀ m
        return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]

    by_row = to_tile([x[:, i : i + 2 * tile_rows - 1 : 2] for i in range(4)])
    tiles = [to_tile([row[:, :, j : j + 2 * tile_columns - 1 : 2] for j in range(4)]) for row in by_row]
    products = [[tiles[a][b] @ u[a, b] for b in range(4)] for a in range(4)]
    columns = [from_tile([products[a][b] for a in range(4)]) for b in range(4)]
    results = [from_tile([columns[b][i] for b in range(4)]) for i in range(2)]
    y = jnp.stack([jnp.stack(row, 3) for row in results], 2)  # [b, tile row, i, tile column, j, f]
    y = y.reshape(batch, 2 * tile_rows, 2 * tile_columns, kernel.shape[3])
    return y[:, :out_height, :out_width]


def _input_gradient(dy: Array, kernel: Array, size: Pair, stride: Pair, padding: Padding) -> Array:
    """The convolution of dy, its pixels spread by the stride, with the kernel turned round."""
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    pads = []
    for n, low, k, s, out in zip(size, (padding[0][0], padding[1][0]), kernel.shape, stride, dy.shape[1:3]):  # noqa: B905
        spread = (out - 1) * s + 1
        pads.append((k - 1 - low, n + low - spread))
    if stride == (1, 1):
        return _forward(dy, turned, stride, (pads[0], pads[1]))
    return lax.conv_general_dilated(dy, turned, (1, 1), pads, lhs_dilation=stride, dimension_numbers=DIMENSIONS)


def _kernel_gradient(x: Array, dy: Array, shape: tuple[int, ...], stride: Pair, padding: Padding) -> Array:
    rows, columns, channels, _ = shape
    if (rows, columns) == (1, 1) and padding == ((0, 0), (0, 0)):
        return _product_over_places(x[:, :: stride[0], :: stride[1]], dy).reshape(shape)
    if channels == 1 or rows * columns > 9:
        return _kernel_gradient_as_convolution(x, dy, shape, stride, padding)
    block = max(size for size in range(1, _BLOCK + 1) if len(x) % size == 0)
    blocks = len(x) // block
    lanes = 2 if blocks % 2 == 0 else 1  # each product runs on one thread: two that do not wait for one another on two

    def add_blocks(i: Array, totals: list[Array]) -> list[Array]:
        starts = [(i * lanes + lane) * block for lane in range(lanes)]
        parts = [[lax.dynamic_slice_in_dim(a, start, block) for a in (x, dy)] for start in starts]
        gradients = [_block_gradient(part_x, part_dy, shape, stride, padding) for part_x, part_dy in parts]
        return [total + gradient.astype(total.dtype) for total, gradient in zip(totals, gradients, strict=True)]

    zeros = [jnp.zeros(shape, widest(x.dtype))] * lanes
    return reduce(jnp.add, lax.fori_loop(0, blocks // lanes, add_blocks, zeros)).astype(x.dtype)


def _block_gradient(x: Array, dy: Array, shape: tuple[int, ...], stride: Pair, padding: Padding) -> Array:
    rows, columns, channels, features = shape
    (top, bottom), (left, right) = padding
    height, out_width = x.shape[1], dy.shape[2]
    if stride == (1, 1):
        # x shifted by columns against dy shifted by rows: one product of [j·c, i·f] holds every place of the kernel.
        x = pad(x, (0, 0), (left, right))
        x = jnp.concatenate([x[:, :, j : j + out_width] for j in range(columns)], -1)
        above = max(0, rows - 1 - top)
        dy = pad(dy, (above, max(0, rows - 1 - bottom)), (0, 0))
        starts = [above + top - i for i in range(rows)]
        dy = jnp.concatenate([dy[:, start : start + height] for start in starts], -1)
        return _product_over_places(x, dy).reshape(columns, channels, rows, features).transpose(2, 0, 1, 3)
    places = shifts(pad(x, *padding), (rows, columns), stride)
    return jnp.stack([_product_over_places(place, dy) for _, place in places]).reshape(shape)


def _kernel_gradient_as_convolution(
    x: Array, dy: Array, shape: tuple[int, ...], stride: Pair, padding: Padding
) -> Array:
    """The convolution of x with dy, channels in place of images and images in place of channels."""
    pads = []
    for k, (low, _), s, n, out in zip(shape, padding, stride, x.shape[1:3], dy.shape[1:3]):  # noqa: B905
        pads.append((low, k + (out - 1) * s - n - low))
    gradient = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        dy.transpose(1, 2, 0, 3),
        (1, 1),
        pads,
        rhs_dilation=stride,
        dimension_numbers=DIMENSIONS,
    )
    return gradient.transpose(1, 2, 0, 3)


def _product_over_places(a: Float[Array, "b h w m"], b: Float[Array, "b h w n"]) -> Float[Array, "m n"]:
    """Returns aᵀ b, summed over images, rows and columns."""
    return lax.dot_general(a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1]), (((0,), (0,)), ((), ())))
