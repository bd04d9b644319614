"""The layers that every family is made of: convolution, batch normalisation, pooling, the head."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jax import lax
from jaxtyping import Array, Float

ModuleDef = Callable[..., nn.Module]
Padding = tuple[tuple[int, int], tuple[int, int]]

# He et al. 2015, section 2.2 (backward form): keeps the variance of the gradient through ReLU layers.
he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def torch_padding(kernel: tuple[int, int]) -> Padding:
    """Returns (k − 1) / 2 on every side, as PyTorch's models pad odd kernels at any stride."""
    return ((kernel[0] // 2, kernel[0] // 2), (kernel[1] // 2, kernel[1] // 2))


def conv2d(
    x: Float[Array, "b h w c"], kernel: Float[Array, "i j c f"], *, stride: tuple[int, int], padding: Padding
) -> Float[Array, "b h2 w2 f"]:
    """Convolves (in the networks' sense: correlates) `x` with `kernel`; `padding` is (low, high) for rows, columns."""
    return lax.conv_general_dilated(x, kernel, stride, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


class Conv(nn.Module):
    """A convolution without bias; its parameter is `kernel` `[i, j, c, f]` in `param_dtype`."""

    features: int
    kernel: tuple[int, int]
    stride: int = 1
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
        kernel = self.param("kernel", he_normal, (*self.kernel, x.shape[-1], self.features), self.param_dtype)
        return conv2d(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=(self.stride, self.stride),
            padding=torch_padding(self.kernel),
        )


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015, algorithm 1) that states what it averages over.

    With `group_size` N, each N consecutive examples are normalised by their own mean and variance, and the running
    variance follows the mean of the groups' variances; the result then does not depend on how many devices hold the
    batch. Without it the statistics are those of the whole batch. Variances are the biased ones throughout.
    """

    train: bool
    group_size: int | None = None  # examples; must divide the batch
    decay: float = 0.9  # weight of the old running value
    epsilon: float = 1e-5
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32
    scale_init: Callable[..., Any] = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        features = x.shape[-1]
        scale = self.param("scale", self.scale_init, (features,), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (features,), self.param_dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (features,), self.param_dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, (features,), self.param_dtype)

        if not self.train:
            gain = scale * lax.rsqrt(running_var.value + self.epsilon)
            return (x * gain + (bias - running_mean.value * gain)).astype(self.dtype)

        batch = x.shape[0]
        group = self.group_size or batch
        if batch % group:
            raise ValueError(f"batch_norm group_size {group} does not divide the batch of {batch}")
        grouped = x.reshape(batch // group, group, *x.shape[1:]).astype(self.param_dtype)
        mean = grouped.mean((1, 2, 3), keepdims=True)
        # E[x²] − E[x]² lets both statistics come from one pass over x.
        var = jnp.maximum(jnp.square(grouped).mean((1, 2, 3), keepdims=True) - jnp.square(mean), 0)
        if not self.is_initializing():
            for running, value in ((running_mean, mean), (running_var, var)):
                running.value = self.decay * running.value + (1 - self.decay) * value.mean(0).reshape(features)
        gain = scale * lax.rsqrt(var + self.epsilon)
        return (grouped * gain + (bias - mean * gain)).astype(self.dtype).reshape(x.shape)


def max_pool(x: Float[Array, "b h w c"], size: int, stride: int) -> Float[Array, "b h2 w2 c"]:
    """Max-pools with PyTorch's symmetric padding, which never wins."""
    return nn.max_pool(x, (size, size), (stride, stride), torch_padding((size, size)))


def global_average(x: Float[Array, "b h w c"], dtype: Dtype) -> Float[Array, "b c"]:
    """Averages over the rows and columns, summing in `dtype`."""
    return x.mean((1, 2), dtype=dtype)


class Head(nn.Module):
    """The classifier: one dense layer whose logits are float32 (or wider) whatever the compute dtype.

    The weights start at a standard deviation of 0.01 (Goyal et al. 2017, section 5.1), so that the first loss is
    close to ln(classes).
    """

    num_classes: int
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b classes"]:
        kernel = self.param("kernel", nn.initializers.normal(0.01), (x.shape[-1], self.num_classes), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.num_classes,), self.param_dtype)
        logits = lax.dot(
            x.astype(self.dtype), kernel.astype(self.dtype), preferred_element_type=jnp.dtype(self.param_dtype)
        )
        return logits + bias


def widest(dtype: Dtype) -> Dtype:
    """Returns the dtype of parameters, statistics and logits for a compute dtype: float32, or float64 for itself."""
    return jnp.promote_types(dtype, jnp.float32)


relu = jax.nn.relu
