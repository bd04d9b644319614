"""Multi-head attention in the form that the platform runs fast; the values agree everywhere."""

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxnets.dtypes import widest
from jaxnets.models.conv import only_plain
from jaxnets.models.steps import one_step

_HALF = (jnp.bfloat16, jnp.float16)


def attend(qkv: Float[Array, "b n c3"], heads: int) -> Float[Array, "b n c"]:
    """Returns softmax(q kᵀ / √d) v of each head, side by side (Vaswani et al. 2017, equation 1 and section 3.2.2).

    `qkv` holds the queries of all heads one after another, then the keys, then the values. In half precision a GPU has
    cuDNN's fused kernel, through `jax.nn.dot_product_attention`, where that takes them. Elsewhere XLA fuses what stands
    here: that function's own form for it has its softmax in float32 in float64 too, and keeps more for the gradient.
    """
    plain = _attention(heads)
    if only_plain() or qkv.dtype not in _HALF or jax.default_backend() != "gpu":
        return plain(qkv)
    fused = partial(_cudnn, heads=heads)
    try:
        jax.eval_shape(fused, qkv)
    except (NotImplementedError, RuntimeError, ValueError):  # an older GPU or cuDNN, or too wide a head for it
        return plain(qkv)
    return lax.platform_dependent(qkv, cuda=fused, default=plain)


def attention_weights(qkv: Float[Array, "b n c3"], heads: int) -> Float[Array, "b heads n n"]:
    """Returns how much each token (second last axis) takes from each other, which adds up to 1."""
    q, k, _ = _apart(qkv, heads)
    return _weights(q, k)


@cache
def _attention(heads: int) -> Callable[[Array], Array]:
    @one_step
    def attention(qkv: Float[Array, "b n c3"]) -> Float[Array, "b n c"]:
        q, k, v = _apart(qkv, heads)
        found = jnp.einsum("bhqk,bkhd->bqhd", _weights(q, k), v)
        return jnp.reshape(found, (*qkv.shape[:2], qkv.shape[2] // 3))

    return attention


def _apart(qkv: Float[Array, "b n c3"], heads: int) -> tuple[Array, Array, Array]:
    """Returns queries, keys and values `[b, n, heads, d]`."""
    b, n, c3 = qkv.shape
    apart = jnp.reshape(qkv, (b, n, 3, heads, c3 // 3 // heads))
    return apart[:, :, 0], apart[:, :, 1], apart[:, :, 2]


def _weights(q: Float[Array, "b n heads d"], k: Float[Array, "b n heads d"]) -> Float[Array, "b heads n n"]:
    return softmax(jnp.einsum("bqhd,bkhd->bhqk", q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype), k))


@jax.custom_vjp
def softmax(x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
    """Returns eˣ / Σ eˣ over the last axis, computed in float32 or wider.

    Its gradient (dy − Σ dy · y) · y keeps y as it is returned, where JAX's own keeps it in float32 beside.
    """
    wide = x.astype(widest(x.dtype))
    shifted = jnp.exp(wide - wide.max(-1, keepdims=True))
    return (shifted / shifted.sum(-1, keepdims=True)).astype(x.dtype)


def _keeping(x: Array) -> tuple[Array, Array]:
    y = softmax(x)
    return y, y


def _backward(y: Array, dy: Array) -> tuple[Array]:
    wide, dy = y.astype(widest(y.dtype)), dy.astype(widest(y.dtype))
    return (((dy - (dy * wide).sum(-1, keepdims=True)) * wide).astype(y.dtype),)


softmax.defvjp(_keeping, _backward)


def _cudnn(qkv: Float[Array, "b n c3"], heads: int) -> Float[Array, "b n c"]:
    found = jax.nn.dot_product_attention(*_apart(qkv, heads), implementation="cudnn")
    return jnp.reshape(found, (*qkv.shape[:2], qkv.shape[2] // 3))
