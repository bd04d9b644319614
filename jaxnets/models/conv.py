"""Convolution in the form that the platform runs fast; the values agree everywhere.

TPU and GPU get XLA's convolution. XLA's CPU backend (JAX 0.10) has three habits that shape what it gets here:

- it brings a convolution's dimensions into the order that it runs fast only outside of loops. What differentiation
  makes of a convolution has another order, and inside a loop runs 16 times slower. So each gradient is written as a
  convolution in the order NHWC, HWIO, NHWC, or as products.
- a product with a small result and a long sum, as the gradient of a kernel is, runs on one thread and wants its
  operands in cache. So that gradient is summed over blocks of images.
- copying the patches of a whole batch costs more than the product they are for.
- a convolution in groups runs 40 to 60 times slower than the same sum over shifted images, which XLA makes one loop
  over contiguous channels, shared among the threads.

Where several CPU devices share a batch (in tests, as a rule), the blocks make each of them compute the kernels'
gradient of the whole batch: right, and slow.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]  # (low, high) of the rows and of the columns; a negative one crops

_plain_only: ContextVar[bool] = ContextVar("plain_only", default=False)

_ORDER = ("NHWC", "HWIO", "NHWC")
_BLOCK = 8  # images whose patches stay in cache
_WINOGRAD_CHANNELS = 32  # from here on fewer products pay for the sums they need
_FEW_CHANNELS = 4  # up to here a sum over shifted images beats XLA's convolution
_ROWS = 8  # whose products a depthwise kernel's gradient sums in registers
_CACHED = 1 << 18  # numbers of dy that a depthwise kernel's gradient takes at a time
_GROUPED_CHANNELS = 32  # at least so many at a time, or the products of a grouped convolution are too small


@contextmanager
def plain_convolutions() -> Iterator[None]:
    """Traces `conv2d` as XLA's convolution on every platform: for exporters, and where only shapes are asked for."""
    before = _plain_only.set(True)
    try:
        yield
    finally:
        _plain_only.reset(before)


def conv2d(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "i j c//groups f"],
    *,
    stride: Pair,
    padding: Padding,
    groups: int = 1,
) -> Float[Array, "b h2 w2 f"]:
    """Convolves `x` with `kernel` in the networks' sense, that is, without turning the kernel round.

    With `groups`, each share of the features sees its own share of the channels alone.
    """

    if _plain_only.get():
        return _plain(x, kernel, stride, padding, groups)

    def on_cpu(x: Array, kernel: Array) -> Array:
        if groups == 1:
            return _cpu(x, kernel, stride, padding)
        if groups == x.shape[3] == kernel.shape[3]:
            return _depthwise(x, kernel, stride, padding)
        return _grouped(x, kernel, stride, padding, groups)

    def on_tpu(x: Array, kernel: Array) -> Array:
        return _tpu(x, kernel, stride, padding, groups)

    def elsewhere(x: Array, kernel: Array) -> Array:
        return _plain(x, kernel, stride, padding, groups)

    return lax.platform_dependent(x, kernel, cpu=on_cpu, tpu=on_tpu, default=elsewhere)


def _plain(x: Array, kernel: Array, stride: Pair, padding: Padding, groups: int = 1) -> Array:
    return lax.conv_general_dilated(x, kernel, stride, padding, dimension_numbers=_ORDER, feature_group_count=groups)


def _tpu(x: Array, kernel: Array, stride: Pair, padding: Padding, groups: int) -> Array:
    """XLA's convolution; of a 1×1 kernel that skips pixels, of the pixels that are left, so that only they are read."""
    if kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0)):
        x, stride = x[:, :: stride[0], :: stride[1]], (1, 1)
    return _plain(x, kernel, stride, padding, groups)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _cpu(x: Array, kernel: Array, stride: Pair, padding: Padding) -> Array:
    return _forward(x, kernel, stride, padding)


def _cpu_forward(x: Array, kernel: Array, stride: Pair, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    return _forward(x, kernel, stride, padding), (x, kernel)


def _cpu_backward(stride: Pair, padding: Padding, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    return (
        _input_gradient(dy, kernel, (x.shape[1], x.shape[2]), stride, padding),
        _kernel_gradient(x, dy, kernel.shape, stride, padding),
    )


_cpu.defvjp(_cpu_forward, _cpu_backward)


def _forward(x: Array, kernel: Array, stride: Pair, padding: Padding) -> Array:
    rows, columns, channels, features = kernel.shape
    if (rows, columns) == (1, 1) and padding == ((0, 0), (0, 0)):
        return x[:, :: stride[0], :: stride[1]] @ kernel[0, 0]
    if channels <= _FEW_CHANNELS and rows * columns <= 9:
        return _sum_of_shifts(x, kernel, stride, padding)
    if (rows, columns) == (3, 3) and stride == (1, 1):
        exact = jnp.finfo(x.dtype).bits >= 32  # Winograd's sums lose too much in 16 bits
        if min(channels, features) >= _WINOGRAD_CHANNELS and exact:
            return _winograd(x, kernel, padding)
    return _plain(x, kernel, stride, padding)


def _sum_of_shifts(x: Array, kernel: Array, stride: Pair, padding: Padding) -> Array:
    """A convolution of few channels, or a depthwise one (`kernel` `[i, j, 1, c]`), as one loop over its products."""
    rows, columns, channels, _ = kernel.shape
    wide = jnp.promote_types(x.dtype, jnp.float32)
    padded, weights = _pad(x, *padding), kernel.astype(wide)
    inputs = [padded] if channels == 1 else [padded[..., n : n + 1] for n in range(channels)]
    terms = [
        shifted.astype(wide) * weights[i, j, n]
        for n, channel in enumerate(inputs)
        for (i, j), shifted in _shifts(channel, (rows, columns), stride)
    ]
    return reduce(jnp.add, terms).astype(x.dtype)


def _shifts(padded: Array, kernel: Pair, stride: Pair) -> list[tuple[Pair, Array]]:
    """Returns for each place of the kernel the pixels of `padded` that it meets, `[b, h2, w2, c]`."""
    last = [(n - k) // s * s + 1 for n, k, s in zip(padded.shape[1:3], kernel, stride, strict=True)]
    return [
        ((i, j), padded[:, i : i + last[0] : stride[0], j : j + last[1] : stride[1]])
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]


def _winograd(x: Array, kernel: Array, padding: Padding) -> Array:
    """A 3×3 convolution at stride 1 as F(2×2, 3×3): 16 products for 4 results, in place of 36.

    Lavin & Gray 2016, section 4.1: Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A for each tile d of 4×4 pixels.
    """
    (top, bottom), (left, right) = padding
    batch, height, width, _ = x.shape
    out_height, out_width = height + top + bottom - 2, width + left + right - 2
    tile_rows, tile_columns = (out_height + 1) // 2, (out_width + 1) // 2
    x = _pad(x, (top, 2 * tile_rows + 2 - height - top), (left, 2 * tile_columns + 2 - width - left))
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
    return lax.conv_general_dilated(dy, turned, (1, 1), pads, lhs_dilation=stride, dimension_numbers=_ORDER)


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

    zeros = [jnp.zeros(shape, jnp.promote_types(x.dtype, jnp.float32))] * lanes
    return reduce(jnp.add, lax.fori_loop(0, blocks // lanes, add_blocks, zeros)).astype(x.dtype)


def _block_gradient(x: Array, dy: Array, shape: tuple[int, ...], stride: Pair, padding: Padding) -> Array:
    rows, columns, channels, features = shape
    (top, bottom), (left, right) = padding
    height, out_width = x.shape[1], dy.shape[2]
    if stride == (1, 1):
        # x shifted by columns against dy shifted by rows: one product of [j·c, i·f] holds every place of the kernel.
        x = _pad(x, (0, 0), (left, right))
        x = jnp.concatenate([x[:, :, j : j + out_width] for j in range(columns)], -1)
        above = max(0, rows - 1 - top)
        dy = _pad(dy, (above, max(0, rows - 1 - bottom)), (0, 0))
        starts = [above + top - i for i in range(rows)]
        dy = jnp.concatenate([dy[:, start : start + height] for start in starts], -1)
        return _product_over_places(x, dy).reshape(columns, channels, rows, features).transpose(2, 0, 1, 3)
    places = _shifts(_pad(x, *padding), (rows, columns), stride)
    return jnp.stack([_product_over_places(place, dy) for _, place in places]).reshape(shape)


def _kernel_gradient_as_convolution(
    x: Array, dy: Array, shape: tuple[int, ...], stride: Pair, padding: Padding
) -> Array:
    """The convolution of x with dy, channels in place of images and images in place of channels."""
    pads = []
    for k, (low, _), s, n, out in zip(shape, padding, stride, x.shape[1:3], dy.shape[1:3]):  # noqa: B905
        pads.append((low, k + (out - 1) * s - n - low))
    gradient = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3), (1, 1), pads, rhs_dilation=stride, dimension_numbers=_ORDER
    )
    return gradient.transpose(1, 2, 0, 3)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x: Array, kernel: Array, stride: Pair, padding: Padding) -> Array:
    return _sum_of_shifts(x, kernel, stride, padding)


def _depthwise_forward(x: Array, kernel: Array, stride: Pair, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    return _sum_of_shifts(x, kernel, stride, padding), (x, kernel)


def _depthwise_backward(stride: Pair, padding: Padding, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    return (
        _depthwise_input_gradient(dy, kernel, (x.shape[1], x.shape[2]), stride, padding),
        _depthwise_kernel_gradient(x, dy, kernel.shape, stride, padding),
    )


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _depthwise_input_gradient(dy: Array, kernel: Array, size: Pair, stride: Pair, padding: Padding) -> Array:
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
        return _sum_of_shifts(dy, part, (1, 1), (pads[0], pads[1]))

    phases = [jnp.stack([phase((a, b)) for b in range(stride[1])], 3) for a in range(stride[0])]
    dx = jnp.stack(phases, 2)  # [b, row, place in stride, column, place in stride, c]
    dx = dx.reshape(len(dy), lengths[0] * stride[0], lengths[1] * stride[1], dy.shape[3])
    return dx[:, : size[0], : size[1]]


def _depthwise_kernel_gradient(x: Array, dy: Array, shape: tuple[int, ...], stride: Pair, padding: Padding) -> Array:
    """Sums x · dy over the places: first over some rows in registers, then over what is left as a product with ones.

    A sum over rows, columns and images at once would not be vectorised over the channels.
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
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
        part_x = _pad(part_x, (top, height - x.shape[1] - top), (left, width - x.shape[2] - left))
        part_dy = _pad(part_dy, (0, missing), (0, 0)).astype(wide)
        sums = []
        for _, place in _shifts(part_x, (rows, columns), stride):
            products = [place[:, r::together] * part_dy[:, r::together] for r in range(together)]
            partial_sums = lax.optimization_barrier(reduce(jnp.add, products).reshape(-1, channels))
            sums.append(jnp.ones(len(partial_sums), wide) @ partial_sums)
        return total + jnp.stack(sums)

    total = lax.fori_loop(0, len(x) // images, add_block, jnp.zeros((rows * columns, channels), wide))
    return total.reshape(shape).astype(x.dtype)


def _grouped(x: Array, kernel: Array, stride: Pair, padding: Padding, groups: int) -> Array:
    """A convolution in groups as one product for some groups at a time, with zeros where two groups meet.

    It takes image by image, so that the patches stay in cache, and computes them again for the gradients.
    """
    rows, columns, channels, _ = kernel.shape
    features = kernel.shape[3] // groups
    together = max(n for n in range(1, groups + 1) if groups % n == 0 and (n == 1 or n * channels <= _GROUPED_CHANNELS))
    chunks = groups // together
    own = jnp.eye(together, dtype=jnp.promote_types(x.dtype, jnp.float32))
    # [chunk, place in the kernel, group of x, channel, group of y, feature], zero unless the groups are the same
    weights = jnp.einsum("pcngf,hg->nphcgf", kernel.reshape(rows * columns, channels, chunks, together, features), own)
    weights = weights.reshape(chunks, rows * columns * together * channels, together * features)

    @jax.checkpoint
    def one(image: Array, weights: Array) -> Array:
        padded = _pad(image[None], *padding)
        by_chunk = padded.reshape(*padded.shape[1:3], chunks, -1).transpose(2, 0, 1, 3)
        patches = jnp.concatenate([place for _, place in _shifts(by_chunk, (rows, columns), stride)], -1)
        _, height, width, _ = patches.shape
        y = lax.batch_matmul(patches.reshape(chunks, height * width, -1), weights.astype(x.dtype))
        return y.transpose(1, 0, 2).reshape(height, width, groups * features)

    return lax.map(lambda image: one(image, weights), x)


def _product_over_places(a: Float[Array, "b h w m"], b: Float[Array, "b h w n"]) -> Float[Array, "m n"]:
    """Returns aᵀ b, summed over images, rows and columns."""
    return lax.dot_general(a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1]), (((0,), (0,)), ((), ())))


def _pad(x: Array, rows: Pair, columns: Pair) -> Array:
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)))
