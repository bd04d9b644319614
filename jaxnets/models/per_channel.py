"""Layers that learn some numbers of each channel and keep their input's shape: layer normalisation, LayerScale."""

from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jax import lax
from jaxtyping import Array, Float

from jaxnets.models.sized import Sized
from jaxnets.models.steps import one_step


class PerChannel(Sized):
    """A layer of this kind; a subclass says how many numbers it learns of each channel."""

    numbers: ClassVar[int]

    def sized(self, x: Array) -> tuple[int, int, Any]:
        return self.numbers * x.shape[-1], 0, jnp.zeros(x.shape)


@one_step
def layer_norm(
    x: Float[Array, "*b c"], scale: Float[Array, " c"], bias: Float[Array, " c"], epsilon: Any
) -> Float[Array, "*b c"]:
    """Returns the last axis of x less its mean, over its deviation, times scale plus bias; computed as wide as scale.

    The variance is the biased one, as the mean of squares of what is left when the mean is taken off: the difference
    of two means, which is quicker by a pass, would lose digits where the mean is large.
    """
    wide = x.astype(scale.dtype)
    centred = wide - wide.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    return (centred * lax.rsqrt(variance + epsilon) * scale + bias).astype(x.dtype)


class LayerNorm(PerChannel):
    """Layer normalisation of the channels of each place (Ba et al. 2016, equations 3 and 4)."""

    epsilon: float = 1e-6
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32
    numbers: ClassVar[int] = 2

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), self.param_dtype)
        return layer_norm(x.astype(self.dtype), scale, bias, self.epsilon)


class LayerScale(PerChannel):
    """Multiplies each channel of a branch by a number that begins near 0 (Touvron et al. 2021, CaiT, section 2)."""

    start: float
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32
    numbers: ClassVar[int] = 1

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        scale = self.param("scale", nn.initializers.constant(self.start), (x.shape[-1],), self.param_dtype)
        return x.astype(self.dtype) * scale.astype(self.dtype)
