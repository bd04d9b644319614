"""The layers that every family is made of: convolution, batch normalisation, pooling, gates, noise, the head."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.typing import Dtype
from jax import lax
from jaxtyping import Array, Float

from jaxnets.models.activated import activated_convolution
from jaxnets.models.conv import conv2d
from jaxnets.models.conventions import PaddingRule, padding_of, torch_padding
from jaxnets.models.gated import gated_projection
from jaxnets.models.mode import Train, trains
from jaxnets.models.normalise import normalise, project_and_normalise
from jaxnets.models.per_channel import PerChannel
from jaxnets.models.statistics import Norm, require_statistics
from jaxnets.models.steps import one_step

ModuleDef = Callable[..., nn.Module]

_WIDENING = 2  # times as many features as channels, from which normalising a product by its channels pays


Widths = Mapping[str, int]  # features of layers by their path, "stage1_block1/conv1", where a network was pruned


def width_of(widths: Widths | None, path: Sequence[str], features: int) -> int:
    """Returns the features of the layer at a path: those that it was pruned to, or else its network's own."""
    return features if widths is None else widths.get("/".join(path), features)


def he_normal(groups: int = 1) -> nn.initializers.Initializer:
    """Returns the initializer of a kernel: normal, with a variance of 2 / (i·j·f / groups).

    These are the outputs that each input has a hand in (He et al. 2015, section 2.2, backward form): the variance of
    the gradient then passes ReLU layers unchanged.
    """
    return nn.initializers.variance_scaling(2.0 * groups, "fan_out", "normal")


class Conv(nn.Module):
    """A convolution; its parameters, in `param_dtype`, are `kernel` `[i, j, c / groups, f]` and perhaps `bias`."""

    features: int
    kernel: tuple[int, int]
    stride: int = 1
    groups: int = 1
    padding: PaddingRule = "torch"
    bias: bool = False
    kernel_init: nn.initializers.Initializer | None = None  # None: `he_normal`
    widths: Widths | None = None  # of a pruned network; what they say of this layer goes before `features`
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @property
    def width(self) -> int:
        """The features that it gives."""
        return width_of(self.widths, self.path, self.features)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], norm: "BatchNorm | None" = None) -> Float[Array, "b h2 w2 f"]:
        """Convolves x, and normalises the result where a `norm` is given."""
        features = self.width
        shape = (*self.kernel, x.shape[-1] // self.groups, features)
        kernel = self.param("kernel", self.kernel_init or he_normal(self.groups), shape, self.param_dtype)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        point = self.kernel == (1, 1) and self.groups == 1
        widens = point and not self.bias and features >= _WIDENING * x.shape[-1]
        if norm is not None and widens and norm.grouped:
            return norm(x[:, :: self.stride, :: self.stride], kernel)
        y = conv2d(x, kernel, **self.geometry(x))
        if self.bias:
            y = y + self.param("bias", nn.initializers.zeros, (features,), self.param_dtype).astype(self.dtype)
        return y if norm is None else norm(y)

    def geometry(self, x: Float[Array, "b h w c"]) -> dict[str, Any]:
        """Returns what `conv2d` takes beside x and the kernel."""
        padding = padding_of(self.padding, x.shape[1:3], self.kernel, self.stride)
        return {"stride": (self.stride, self.stride), "padding": padding, "groups": self.groups}


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015, algorithm 1) that states what it averages over.

    With `group_size` N, each N consecutive examples are normalised by their own mean and variance, and the running
    variance follows the mean of the groups' variances; the result then does not depend on how many devices hold the
    batch. Without it the statistics are those of the whole batch. Variances are the biased ones throughout. A group
    that holds one value of each channel is refused.
    """

    train: Train
    group_size: int | None = None  # examples; must divide the batch
    decay: float = 0.9  # weight of the old running value
    epsilon: float = 1e-5
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32
    scale_init: Callable[..., Any] = nn.initializers.ones
    learned_scale: bool = True  # False: it is 1, and the bias alone trains

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        kernel: Float[Array, "1 1 c f"] | None = None,
        through: Callable[..., tuple[Array, Array, Array]] = normalise,
    ) -> Float[Array, "b h2 w2 f"]:
        """Normalises x, or with a `kernel`, where it is `grouped`, the 1×1 convolution of x with it.

        `through` takes the groups, scale, bias and epsilon in place of `normalise`, and may go on from there; it is
        for norms that are `in_training`.
        """
        features = x.shape[-1] if kernel is None else kernel.shape[-1]
        if self.learned_scale:
            scale = self.param("scale", self.scale_init, (features,), self.param_dtype)
        else:
            scale = jnp.ones((features,), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (features,), self.param_dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (features,), self.param_dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, (features,), self.param_dtype)

        if not self.in_training:
            gain = scale * lax.rsqrt(running_var.value + self.epsilon)
            return (x.astype(gain.dtype) * gain + (bias - running_mean.value * gain)).astype(self.dtype)

        batch = x.shape[0]
        group = self.group_size or batch
        if batch % group:
            raise ValueError(f"batch_norm group_size {group} does not divide the batch of {batch}")
        if not self.is_initializing():
            require_statistics(Norm("/".join(self.path), *x.shape[1:3]), group)
        grouped = x.reshape(batch // group, group, *x.shape[1:])
        if kernel is None:
            y, mean, var = through(grouped, scale, bias, self.epsilon)
        else:
            y, mean, var = project_and_normalise(grouped, kernel, scale, bias, self.epsilon)
        if not self.is_initializing():
            for running, value in ((running_mean, mean), (running_var, var)):
                running.value = self.decay * running.value + (1 - self.decay) * value.mean(0)
        return y.astype(self.dtype).reshape(batch, *y.shape[2:])

    @property
    def grouped(self) -> bool:
        """Tells whether it normalises groups by their own statistics, as what joins it with its neighbours needs."""
        return self.in_training and self.group_size is not None

    @property
    def in_training(self) -> bool:
        """Tells whether it normalises by the statistics of what it sees, rather than by the running ones."""
        return trains(self.train, self.path)


def max_pool(x: Float[Array, "b h w c"], size: int, stride: int) -> Float[Array, "b h2 w2 c"]:
    """Max-pools with PyTorch's symmetric padding, which never wins."""
    return nn.max_pool(x, (size, size), (stride, stride), torch_padding((size, size)))


def max_of_tiles(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b h2 w2 c"]:
    """Takes the largest of each tile of size × size pixels; those that reach over the end are left out.

    Where there are fewer rows or columns than that, their largest is taken. Written as the maximum of shifted images,
    whose gradient a CPU computes many times faster than that of a pooling window.
    """
    tile = [min(size, n) for n in x.shape[1:3]]
    last = [n // t * t for n, t in zip(x.shape[1:3], tile, strict=True)]
    shifted = [x[:, i : last[0] : tile[0], j : last[1] : tile[1]] for i in range(tile[0]) for j in range(tile[1])]
    return reduce(jnp.maximum, shifted)


def average_pool(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b h2 w2 c"]:
    """Averages tiles of size × size pixels; those that reach over the end average the pixels that are there."""
    pads = [(0, -n % size) for n in x.shape[1:3]]
    add_up = partial(
        nn.pool, init=0.0, reduce_fn=lax.add, window_shape=(size, size), strides=(size, size), padding=pads
    )
    if not any(high for _, high in pads):
        return add_up(x) / size**2
    return add_up(x) / add_up(jnp.ones((1, *x.shape[1:3], 1), x.dtype))


def global_average(x: Float[Array, "b h w c"], dtype: Dtype) -> Float[Array, "b c"]:
    """Averages over the rows and columns, summing in `dtype`."""
    return x.mean((1, 2), dtype=dtype)


class Head(nn.Module):
    """The classifier: one dense layer whose logits are float32 (or wider) whatever the compute dtype.

    The weights start at a standard deviation of 0.01 (Goyal et al. 2017, section 5.1), so that the first loss is
    close to ln(classes).

    With `single_output`, which is for two classes, it has one output z, and the logits are 0 and z: their softmax is
    1 − σ(z) and σ(z), and its cross-entropy the binary one of z.
    """

    num_classes: int
    single_output: bool = False
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b classes"]:
        shape = (x.shape[-1], self.outputs)
        kernel = self.param("kernel", nn.initializers.normal(0.01), shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.outputs,), self.param_dtype)
        if self.single_output:  # nothing but a dense layer, for whatever reads the program
            kernel, bias = with_two_outputs(kernel, bias)
        logits = lax.dot(
            x.astype(self.dtype), kernel.astype(self.dtype), preferred_element_type=jnp.dtype(self.param_dtype)
        )
        return logits + bias

    @property
    def outputs(self) -> int:
        """How many it has parameters for."""
        return 1 if self.single_output else self.num_classes


def with_two_outputs(
    kernel: Float[Array, "c 1"], bias: Float[Array, " 1"]
) -> tuple[Float[Array, "c 2"], Float[Array, " 2"]]:
    """Returns the parameters of a head of two outputs that gives the logits of one with a single output."""
    return jnp.pad(kernel, ((0, 0), (1, 0))), jnp.pad(bias, (1, 0))


class Bias(PerChannel):
    """Adds a number to each channel, which starts at 0."""

    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32
    numbers: ClassVar[int] = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), self.param_dtype)
        return x.astype(self.dtype) + bias.astype(self.dtype)


@one_step
def gelu(x: Array) -> Array:
    """Returns x · Φ(x), with Φ of the normal distribution (Hendrycks & Gimpel 2016, section 2), not approximated.

    By erf, which other programs have, where JAX's own takes erfc.
    """
    return x * (0.5 + 0.5 * lax.erf(x * np.asarray(0.5**0.5, x.dtype)))


relu = jax.nn.relu
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": relu,
    "relu6": jax.nn.relu6,
    "silu": jax.nn.silu,
    "gelu": gelu,
}


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate in 0…1 that all channels' averages decide (Hu et al. 2018, equations 2 to 4)."""

    squeezed: int  # features between the two dense layers
    activation: Callable[[Array], Array] = relu
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        return x * self.gates(global_average(x, self.param_dtype))[:, None, None, :]

    @nn.compact
    def gates(self, averages: Float[Array, "b c"]) -> Float[Array, "b c"]:
        """Returns each channel's gate from the channels' averages."""
        dense = partial(nn.Dense, kernel_init=he_normal(), dtype=self.dtype, param_dtype=self.param_dtype)
        squeezed = self.activation(dense(self.squeezed, name="reduce")(averages))
        return jax.nn.sigmoid(dense(averages.shape[-1], name="expand")(squeezed))


def gate_and_project(
    x: Float[Array, "b h w c"],
    norm: BatchNorm,
    activation: Callable[[Array], Array],
    gate: SqueezeExcite,
    project: Conv,
) -> Float[Array, "b h w f"]:
    """Returns `project(gate(activation(norm(x))))` of a 1×1 convolution, with all four as one where that can pay."""
    if norm.is_initializing() or not norm.grouped or project.bias:
        return project(gate(activation(norm(x))))
    unbound = gate.clone(parent=None)

    def gates(params: Any, averages: Array) -> Any:
        return unbound.apply({"params": params}, averages, method="gates")

    through = partial(
        gated_projection,
        kernel=project.variables["params"]["kernel"].astype(project.dtype),
        params=gate.variables["params"],
        activation=activation,
        gates=gates,
    )
    return norm(x, through=through)


def activate_and_convolve(
    x: Float[Array, "b h w c"], norm: BatchNorm, activation: Callable[[Array], Array], conv: Conv
) -> Float[Array, "b h2 w2 f"]:
    """Returns `conv(activation(norm(x)))`, with all three as one in training, which then needs less memory."""
    if norm.is_initializing() or not norm.in_training or conv.bias:
        return conv(activation(norm(x)))
    through = partial(
        activated_convolution,
        kernel=conv.variables["params"]["kernel"].astype(conv.dtype),
        activation=activation,
        **conv.geometry(x),
    )
    return norm(x, through=through)


class Dropout(nn.Dropout):
    """Leaves a share `rate` of the features out while training, and divides the rest by the share that stays."""

    train: Train = False

    def __call__(
        self, inputs: Float[Array, "*b c"], deterministic: bool | None = None, rng: Array | None = None
    ) -> Float[Array, "*b c"]:
        """As of `nn.Dropout`; `deterministic`, where it is given, goes before what `train` says."""
        given = deterministic is not None
        return super().__call__(inputs, deterministic if given else not trains(self.train, self.path), rng)


class StochasticDepth(nn.Module):
    """Leaves a block's branch out of some examples while training (Huang et al. 2016, section 3).

    What stays is divided by the share that stays, so that evaluation needs no scaling.
    """

    rate: float  # share of the examples whose branch is left out
    train: Train

    @nn.compact
    def __call__(self, branch: Float[Array, "b *places c"]) -> Float[Array, "b *places c"]:
        if self.rate == 0.0 or not trains(self.train, self.path):
            return branch
        examples = (branch.shape[0], *[1] * (branch.ndim - 1))
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, examples)
        return jnp.where(keep, branch / (1 - self.rate), 0).astype(branch.dtype)


def depth_rates(last: float, blocks: int, *, from_zero: bool = False) -> list[float]:
    """Returns each block's stochastic depth, rising linearly to `last` (Huang et al. 2016, equation 4).

    With `from_zero` the first block is never left out, as in the networks that came after transformers (timm's
    `calculate_drop_path_rates`); otherwise the image is thought of as a block before it that is not.
    """
    if from_zero:
        return [last * block / max(blocks - 1, 1) for block in range(blocks)]
    return [last * (block + 1) / blocks for block in range(blocks)]
