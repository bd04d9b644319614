"""ConvNeXts: Liu et al. 2022, and V2 with global response normalisation (Woo et al. 2023)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from jaxnets.dtypes import widest
from jaxnets.models.family import Network, Outputs, Structure, numbered_stages
from jaxnets.models.layers import Conv, Dropout, Head, StochasticDepth, depth_rates, gelu, global_average
from jaxnets.models.mode import Train
from jaxnets.models.per_channel import LayerNorm, LayerScale, PerChannel
from jaxnets.preprocess import Preprocess

_EXPAND = 4  # features inside a block for each one that enters it
_INIT = nn.initializers.normal(0.02)  # timm's is cut off at ±2, a hundred deviations away


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A row of Liu et al. 2022, table 9."""

    blocks: int
    features: int


class ResponseNorm(PerChannel):
    """Global response normalisation, which strengthens an image's strong channels (Woo et al. 2023, algorithm 1).

    x · (1 + scale · n) + bias, with n the channel's norm over the image, √Σ x², divided by the mean of all channels'
    norms. It starts as the identity. What is summed up is as wide as the parameters.
    """

    epsilon: float = 1e-6  # added to the mean
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32
    numbers: ClassVar[int] = 2

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        scale = self.param("scale", nn.initializers.zeros, (x.shape[-1],), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), self.param_dtype)
        wide = x.astype(self.param_dtype)
        squares = (wide * wide).sum((1, 2))
        # Of a channel that is 0 everywhere the gradient is 0, as PyTorch has it; √'s own has no end there.
        norms = jnp.sqrt(jnp.maximum(squares, jnp.finfo(squares.dtype).tiny))
        gain = 1 + scale * (norms / (norms.mean(-1, keepdims=True) + self.epsilon))
        return x.astype(self.dtype) * gain[:, None, None, :].astype(self.dtype) + bias.astype(self.dtype)


class Block(nn.Module):
    """Depthwise 7×7 → norm → 1×1 to four times the features → GELU → 1×1 back, with a shortcut past it all.

    The first block of every stage but the first halves the image before: a norm, and a 2×2 convolution of stride 2.
    """

    features: int
    halves: bool
    conv: Callable[..., Conv]
    norm: Callable[..., LayerNorm]
    dense: Callable[..., nn.Dense]
    response_norm: Callable[..., ResponseNorm] | None
    layer_scale: Callable[..., LayerScale] | None
    stochastic_depth: nn.Module

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
        if self.halves:
            x = self.norm(name="halving_norm")(x)
            x = self.conv(self.features, (2, 2), stride=2, padding="valid", name="halving_conv")(x)
        y = self.conv(self.features, (7, 7), groups=self.features, padding="torch", name="depthwise_conv")(x)
        y = self.norm(name="norm")(y)
        y = gelu(self.dense(_EXPAND * self.features, name="expand")(y))
        if self.response_norm is not None:
            y = self.response_norm(name="response_norm")(y)
        y = self.dense(self.features, name="project")(y)
        if self.layer_scale is not None:
            y = self.layer_scale(name="layer_scale")(y)
        return x + self.stochastic_depth(y)


class ConvNeXt(Network):
    """A ConvNeXt; its features are `{"stem": …, "stage1": …, …}`, and its embedding is normalised."""

    stages: tuple[Stage, ...]
    num_classes: int
    single_output: bool = False  # of two classes: one output, whose logits are 0 and itself
    patch: int = 4  # pixels, along each side, of what the stem makes one place of
    layer_scale: float | None = 1e-6  # what each block's branch is multiplied by at first; None: by nothing (V2)
    response_norm: bool = False  # V2
    conv_mlp: bool = False  # timm keeps the dense layers of these as 1×1 convolutions; they compute the same
    dropout: float = 0.0  # share of the features left out before the head
    stochastic_depth: float = 0.0  # share of the examples that leave out the last block's branch; fewer before it
    remat_stages: int = 0  # first ones, whose blocks are computed again for the gradient, to need less memory
    layer_norm_epsilon: float = 1e-6
    last_norm_epsilon: float | None = None  # of the norm before the head; None: as the others
    dtype: Dtype = jnp.float32
    preprocess: Preprocess | None = None  # what its images go through before; no part of the network

    @nn.compact
    def outputs(self, x: Float[Array, "b h w c"], train: Train) -> Outputs:
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": widest(self.dtype)}
        conv: Callable[..., Conv] = partial(Conv, bias=True, kernel_init=_INIT, **dtypes)
        norm = partial(LayerNorm, epsilon=self.layer_norm_epsilon, **dtypes)
        rates = iter(depth_rates(self.stochastic_depth, sum(stage.blocks for stage in self.stages), from_zero=True))
        parts: dict[str, Any] = {
            "conv": conv,
            "norm": norm,
            "dense": partial(nn.Dense, kernel_init=_INIT, **dtypes),
            "response_norm": partial(ResponseNorm, **dtypes) if self.response_norm else None,
            "layer_scale": None if self.layer_scale is None else partial(LayerScale, self.layer_scale, **dtypes),
        }

        patch = (self.patch, self.patch)
        x = conv(self.stages[0].features, patch, stride=self.patch, padding="valid", name="stem_conv")(x)
        x = norm(name="stem_norm")(x)
        features = {"stem": x}
        for i, stage in enumerate(self.stages, 1):
            block = nn.remat(Block) if i <= self.remat_stages else Block
            for j in range(1, stage.blocks + 1):
                x = block(
                    stage.features,
                    halves=i > 1 and j == 1,
                    **parts,
                    stochastic_depth=StochasticDepth(next(rates), train, parent=None),
                    name=f"stage{i}_block{j}",
                )(x)
            features[f"stage{i}"] = x
        epsilon = self.layer_norm_epsilon if self.last_norm_epsilon is None else self.last_norm_epsilon
        last_norm = LayerNorm(epsilon, dtype=dtypes["param_dtype"], param_dtype=dtypes["param_dtype"], name="last_norm")
        embedding = last_norm(global_average(x, dtypes["param_dtype"]))
        dropped = Dropout(self.dropout, train=train, name="dropout")(embedding)
        return Outputs(features, embedding, Head(self.num_classes, self.single_output, name="head", **dtypes)(dropped))


def structure(model: ConvNeXt) -> Structure:
    """Returns the network's layers; the norm after the last block goes with the head."""
    stages = numbered_stages(stage.blocks for stage in model.stages)
    return Structure(stem=("stem_conv", "stem_norm"), stages=stages, head="head", before_head=("last_norm",))
