"""Batch normalisation as pure functions, and together with the 1×1 convolution before it."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxnets.dtypes import widest
from jaxnets.models.conv import conv2d

PLACES = (1, 2, 3)  # axes of one group's images, rows and columns

Statistics = Float[Array, "g c"]


class Line(NamedTuple):
    """The gradient of a normalised array in what it was made of: dx = gain · dy + slope · x + shift."""

    gain: Statistics
    slope: Statistics
    shift: Statistics
    dscale: Statistics

    @classmethod
    def of(cls, dy_x: Array, dbias: Array, mean: Array, inverse: Array, scale: Array, *, places: int) -> "Line":
        """Returns it from Σ dy · x and Σ dy over each group's `places`."""
        dscale = (dy_x - mean * dbias) * inverse
        gain = inverse * scale
        slope = -gain * inverse * dscale / places
        return cls(gain, slope, -(gain * dbias / places + slope * mean), dscale)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise(
    x: Float[Array, "g n h w c"], scale: Float[Array, " c"], bias: Float[Array, " c"], epsilon: float
) -> tuple[Float[Array, "g n h w c"], Statistics, Statistics]:
    """Normalises each group by its own statistics; returns them too, without a gradient of their own.

    Its gradient is the closed form (Ioffe & Szegedy 2015, section 3), which needs of the large arrays x alone, where
    differentiation would keep x − mean beside it. Everything but x and y is float32 or wider.
    """
    return _normalise_forward(x, scale, bias, epsilon)[0]


def _normalise_forward(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Any, Any]:
    wide = x.astype(scale.dtype)
    mean = wide.mean(PLACES)
    # E[x²] − E[x]² lets both statistics come from one pass over x.
    var = jnp.maximum(jnp.square(wide).mean(PLACES) - jnp.square(mean), 0)
    inverse = lax.rsqrt(var + epsilon)
    gain = inverse * scale
    y = wide * spread(gain) + spread(bias - mean * gain)
    return (y.astype(x.dtype), mean, var), (x, mean, inverse, scale)


def _normalise_backward(epsilon: float, saved: Any, cotangents: Any) -> tuple[Array, Array, Array]:
    x, mean, inverse, scale = saved
    wide, dy = x.astype(scale.dtype), cotangents[0].astype(scale.dtype)
    dbias = dy.sum(PLACES)
    line = Line.of((dy * wide).sum(PLACES), dbias, mean, inverse, scale, places=x.size // mean.size)
    dx = spread(line.gain) * dy + spread(line.slope) * wide + spread(line.shift)
    return dx.astype(x.dtype), line.dscale.sum(0), dbias.sum(0)


normalise.defvjp(_normalise_forward, _normalise_backward)


def project_and_normalise(
    x: Float[Array, "g n h w i"],
    kernel: Float[Array, "1 1 i o"],
    scale: Float[Array, " o"],
    bias: Float[Array, " o"],
    epsilon: float,
) -> tuple[Float[Array, "g n h w o"], Float[Array, "g o"], Float[Array, "g o"]]:
    """Returns `normalise` of the 1×1 convolution of x.

    On a TPU, whose memory is what training waits for, statistics and gradient are computed from x instead of from the
    product z, which has the more channels: z is then neither written nor read. The values agree.
    """

    def plain(x: Array, kernel: Array, scale: Array, bias: Array) -> Any:
        return normalise(_project(x, kernel), scale, bias, epsilon)

    def lean(x: Array, kernel: Array, scale: Array, bias: Array) -> Any:
        return lean_project_and_normalise(x, kernel, scale, bias, epsilon)

    return lax.platform_dependent(x, kernel, scale, bias, tpu=lean, default=plain)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def lean_project_and_normalise(x: Array, kernel: Array, scale: Array, bias: Array, epsilon: float) -> Any:
    """Does what `project_and_normalise` does, on every platform in the way that suits a TPU."""
    return _lean_forward(x, kernel, scale, bias, epsilon)[0]


def _lean_forward(x: Array, kernel: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Any, Any]:
    """With z = x K and X the places of a group as rows: Σ z = Σ x · K and Σ z² = Σᵢ K · (XᵀX K), for each feature."""
    wide = scale.dtype
    k = kernel[0, 0].astype(wide)
    places = x.size // (len(x) * x.shape[-1])
    x_x, x_sum = over_places("gnhwi,gnhwj->gij", x, x), x.astype(wide).sum(PLACES)
    mean = _exact("gi,io->go", x_sum, k) / places
    square = (k * _exact("gij,jo->gio", x_x, k)).sum(1) / places
    var = jnp.maximum(square - jnp.square(mean), 0)
    inverse = lax.rsqrt(var + epsilon)
    gain = inverse * scale
    y = _project(x, kernel).astype(wide) * spread(gain) + spread(bias - mean * gain)
    return (y.astype(x.dtype), mean, var), (x, kernel, x_x, x_sum, mean, inverse, scale)


def _lean_backward(epsilon: float, saved: Any, cotangents: Any) -> tuple[Array, Array, Array, Array]:
    """With dz = gain · dy + slope · z + shift: Σ dy · z = Σᵢ K · Xᵀdy,

    dK = Xᵀdz = Xᵀdy · gain + XᵀX K · slope + Xᵀ1 · shift, and
    dx = dz Kᵀ = dy (K · gain)ᵀ + x (K · slope) Kᵀ + shift Kᵀ.
    """
    x, kernel, x_x, x_sum, mean, inverse, scale = saved
    wide, dy = scale.dtype, cotangents[0]
    k = kernel[0, 0].astype(wide)
    dbias = dy.astype(wide).sum(PLACES)
    x_dy = over_places("gnhwi,gnhwo->gio", x, dy)
    places = x.size // (len(x) * x.shape[-1])
    line = Line.of((k * x_dy).sum(1), dbias, mean, inverse, scale, places=places)

    dk = (x_dy * line.gain[:, None]).sum(0) + _exact("gi,go->io", x_sum, line.shift)
    dk += (_exact("gij,jo->gio", x_x, k) * line.slope[:, None]).sum(0)

    back = (k * line.gain[:, None]).astype(x.dtype)
    own = _exact("io,go,jo->gij", k, line.slope, k).astype(x.dtype)
    dx = over_places("gnhwo,gio->gnhwi", dy, back)
    dx += jnp.einsum("gnhwi,gij->gnhwj", x, own).astype(wide) + spread(_exact("go,io->gi", line.shift, k))
    return dx.astype(x.dtype), dk[None, None].astype(kernel.dtype), line.dscale.sum(0), dbias.sum(0)


def _exact(equation: str, *arrays: Array) -> Array:
    return jnp.einsum(equation, *arrays, precision=lax.Precision.HIGHEST)


def over_places(equation: str, *arrays: Array) -> Array:
    """Returns an einsum that is added up, and returned, in float32 or wider."""
    return jnp.einsum(equation, *arrays, preferred_element_type=widest(arrays[0].dtype))


lean_project_and_normalise.defvjp(_lean_forward, _lean_backward)


def _project(x: Float[Array, "g n h w i"], kernel: Float[Array, "1 1 i o"]) -> Float[Array, "g n h w o"]:
    return over_groups(lambda images: conv2d(images, kernel, stride=(1, 1), padding=((0, 0), (0, 0))), x)


def over_groups(function: Callable[[Array], Array], x: Float[Array, "g n h w c"]) -> Float[Array, "g n h2 w2 f"]:
    """Returns a function of images, of those of all groups."""
    y = function(x.reshape(-1, *x.shape[2:]))
    return y.reshape(*x.shape[:2], *y.shape[1:])


def spread(statistic: Statistics) -> Float[Array, "g 1 1 1 c"]:
    return statistic[:, None, None, None]
