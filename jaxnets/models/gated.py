"""The second half of a block with squeeze-and-excitation as one pure function: normalise, activate, gate, project."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxnets.models.conv import conv2d
from jaxnets.models.normalise import Line, Statistics, normalise, over_places, spread

Activation = Callable[[Array], Array]
Gates = Callable[[Any, Float[Array, "b c"]], Float[Array, "b c"]]  # of parameters and each channel's average


def gated_projection(
    x: Float[Array, "g n h w c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    epsilon: float,
    *,
    kernel: Float[Array, "1 1 c f"],
    params: Any,
    activation: Activation,
    gates: Gates,
) -> tuple[Float[Array, "g n h w f"], Statistics, Statistics]:
    """Returns the 1×1 convolution of a · gates(params, average of a), with a = activation(normalise(x)).

    The statistics of x follow, as from `normalise`. On a TPU, whose memory is what training waits for, the gradient
    passes over x as rarely as it can. The values agree.
    """
    functions = (activation, gates, epsilon)

    def plain(*arrays: Any) -> Any:
        return _forward(*functions, *arrays)[:3]

    def lean(*arrays: Any) -> Any:
        return lean_gated_projection(*functions, *arrays)

    return lax.platform_dependent(x, scale, bias, kernel, params, tpu=lean, default=plain)


def _forward(
    activation: Activation,
    gates: Gates,
    epsilon: float,
    x: Array,
    scale: Array,
    bias: Array,
    kernel: Array,
    params: Any,
) -> tuple[Array, Array, Array, Float[Array, "b c"]]:
    """Returns the result, the statistics of x and the averages that the gates saw."""
    y, mean, var = normalise(x, scale, bias, epsilon)
    a = activation(y.reshape(-1, *y.shape[2:]))
    averages = a.mean((1, 2), dtype=scale.dtype)
    gated = a * gates(params, averages)[:, None, None, :]
    out = conv2d(gated, kernel, stride=(1, 1), padding=((0, 0), (0, 0)))
    return out.reshape(*x.shape[:-1], -1), mean, var, averages


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def lean_gated_projection(activation: Activation, gates: Gates, epsilon: float, *arrays: Any) -> Any:
    """Does what `gated_projection` does, on every platform in the way that suits a TPU."""
    return _forward(activation, gates, epsilon, *arrays)[:3]


def _lean_forward(activation: Activation, gates: Gates, epsilon: float, *arrays: Any) -> tuple[Any, Any]:
    out, mean, var, averages = _forward(activation, gates, epsilon, *arrays)
    return (out, mean, var), (*arrays, mean, lax.rsqrt(var + epsilon), averages)


def _lean_backward(activation: Activation, gates: Gates, epsilon: float, saved: Any, cotangents: Any) -> Any:
    """With u = dout Kᵀ: da = u · gate + d, where d, the averages' gradient for each place, needs Σ u · a beforehand.

    The norm needs Σ dy and Σ dy · x with dy = da · a′(y). Taken for each image by itself and for both terms of da,
    all sums come from one pass over x. u is computed a second time for dx rather than written and read.
    """
    x, scale, bias, kernel, params, mean, inverse, averages = saved
    dout, wide = cotangents[0], scale.dtype
    groups, images, rows, columns, channels = x.shape
    gain = inverse * scale
    wide_x = x.astype(wide)
    y = (wide_x * spread(gain) + spread(bias - mean * gain)).astype(x.dtype)
    a, pull_activation = jax.vjp(activation, y.astype(wide))
    slope = pull_activation(jnp.ones_like(a))[0]

    def total(array: Array) -> Float[Array, "g n c"]:
        return array.sum((2, 3))

    u = over_places("gnhwf,cf->gnhwc", dout, kernel[0, 0])
    gate, pull_gates = jax.vjp(gates, params, averages)
    dgate = total(u * a).reshape(gate.shape).astype(gate.dtype)
    dparams, daverages = pull_gates(dgate)
    gate, d = (v.astype(wide).reshape(groups, images, channels) for v in (gate, daverages / (rows * columns)))
    dbias = (gate * total(u * slope) + d * total(slope)).sum(1)
    dy_x = (gate * total(u * slope * wide_x) + d * total(slope * wide_x)).sum(1)
    line = Line.of(dy_x, dbias, mean, inverse, scale, places=images * rows * columns)

    dkernel = over_places("gnhwc,gnhwf->cf", activation(y) * _over(gate.astype(x.dtype)), dout)
    # The barrier keeps the compiler from taking the two for one, which it would have to write.
    again, line = lax.optimization_barrier((kernel[0, 0], line))
    u = over_places("gnhwf,cf->gnhwc", dout, again)
    dy = (u * _over(gate) + _over(d)) * slope
    dx = spread(line.gain) * dy + spread(line.slope) * wide_x + spread(line.shift)
    return dx.astype(x.dtype), line.dscale.sum(0), dbias.sum(0), dkernel[None, None].astype(kernel.dtype), dparams


lean_gated_projection.defvjp(_lean_forward, _lean_backward)


def _over(of_images: Float[Array, "g n c"]) -> Float[Array, "g n 1 1 c"]:
    return of_images[:, :, None, None]
