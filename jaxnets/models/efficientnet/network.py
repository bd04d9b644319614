"""EfficientNets: Tan & Le 2019, their Lite variants, and EfficientNetV2 (Tan & Le 2021)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from jaxnets.dtypes import widest
from jaxnets.models.conventions import PaddingRule
from jaxnets.models.family import Network, Outputs, Structure, numbered_stages
from jaxnets.models.layers import (
    ACTIVATIONS,
    BatchNorm,
    Conv,
    Dropout,
    Head,
    SqueezeExcite,
    StochasticDepth,
    Widths,
    activate_and_convolve,
    depth_rates,
    gate_and_project,
    global_average,
    width_of,
)
from jaxnets.models.mode import Train
from jaxnets.preprocess import Preprocess


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A row of Tan & Le 2019, table 1, or of Tan & Le 2021, table 4."""

    kernel: int
    repeats: int
    stride: int  # of the first block
    expand: int  # features inside a block for each one that enters it
    features: int  # that leave it
    squeeze: float = 0.0  # features inside squeeze-and-excitation for each one that enters the block; 0: there is none
    fused: bool = False  # one full convolution in place of the 1×1 and the depthwise one


class Compound(NamedTuple):
    """How much wider, deeper and larger than the base network."""

    width: float
    depth: float
    resolution: int  # pixels


def compound_scaling(phi: float) -> Compound:
    """Returns the scaling for 2^φ times the multiply-adds of B0 (Tan & Le 2019, equation 3).

    depth 1.2^φ, width 1.1^φ, resolution 224 · 1.15^φ (section 3.3). The published B1 to B8 are φ = 0.5, 1, 2, 3.5, 5,
    6, 7 and 8, rounded by hand; `efficientnet_b1` and so on hold their published numbers.

        width, depth, resolution = compound_scaling(2.5)
        model = jaxnets.create_model("efficientnet_b0", width=width, depth=depth)
    """
    return Compound(width=1.1**phi, depth=1.2**phi, resolution=round(224 * 1.15**phi))


def scale_features(features: float, width: float, *, keep: float = 0.9) -> int:
    """Returns width · features rounded to a multiple of 8, and up where less than the share `keep` would be left."""
    wanted = features * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < keep * wanted else rounded


class MBConv(nn.Module):
    """1×1 to expand, depthwise, gate, 1×1 to project, with a `shortcut` where the shape is kept.

    `stage.fused` replaces the first two by one convolution (Tan & Le 2021, figure 2); without expansion no projection
    follows that.
    """

    stage: Stage
    stride: int
    features: int
    shortcut: bool
    activation: str
    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]
    gate: Callable[..., SqueezeExcite]
    stochastic_depth: nn.Module
    widths: Widths | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
        stage, act = self.stage, ACTIVATIONS[self.activation]
        channels, kernel = x.shape[-1], (self.stage.kernel, self.stage.kernel)
        expanded = self._width("depthwise_conv", channels * stage.expand)
        y = x
        if stage.fused and stage.expand == 1:
            y = self.conv(self.features, kernel, stride=self.stride, name="project_conv")(y)
            y = act(self.norm(name="project_norm")(y))
        else:
            if stage.fused:
                y = self.conv(expanded, kernel, stride=self.stride, name="expand_conv")(y)
                norm = self.norm(name="expand_norm")
            else:
                depthwise = self.conv(expanded, kernel, stride=self.stride, groups=expanded, name="depthwise_conv")
                if stage.expand == 1:
                    y = depthwise(y)
                else:
                    expand, norm = self.conv(expanded, (1, 1), name="expand_conv"), self.norm(name="expand_norm")
                    # A norm of groups is joined with the convolution before it, which spares a TPU the large array.
                    if norm.grouped:
                        y = depthwise(act(expand(y, norm)))
                    else:
                        y = activate_and_convolve(expand(y), norm, act, depthwise)
                norm = self.norm(name="depthwise_norm")
            project = self.conv(self.features, (1, 1), name="project_conv")
            if stage.squeeze:
                squeezed = self._width("squeeze/reduce", max(1, int(channels * stage.squeeze)))
                gate = self.gate(squeezed, activation=act, name="squeeze")
                y = gate_and_project(y, norm, act, gate, project)
            else:
                y = activate_and_convolve(y, norm, act, project)
            y = self.norm(name="project_norm")(y)
        if self.shortcut:
            y = self.stochastic_depth(y) + x
        return y

    def _width(self, layer: str, features: int) -> int:
        return width_of(self.widths, (*self.path, layer), features)


class EfficientNet(Network):
    """A network of MBConv blocks; its features are `{"stem": …, "stage1": …, …, "top": …}`, top after all."""

    stages: tuple[Stage, ...]
    stem_features: int
    top_features: int  # of the last convolution
    num_classes: int
    single_output: bool = False  # of two classes: one output, whose logits are 0 and itself
    width: float = 1.0  # times as many features
    depth: float = 1.0  # times as many blocks, rounded up
    scaled_ends: bool = (
        True  # False (Lite): stem, last convolution and the repeats of the outer stages stay as they are
    )
    keep_features: float = 0.9  # share that rounding a number of features leaves at least
    activation: Literal["silu", "relu6", "relu"] = "silu"
    padding: PaddingRule = "same"  # as TensorFlow pads, or "torch"
    dropout: float = 0.2  # share of the features left out before the head
    stochastic_depth: float = 0.2  # share of the examples that leave out the last block's branch; fewer before it
    remat_stages: int = 0  # first ones, whose blocks are computed again for the gradient, to need less memory
    norm_group_size: int | None = None
    norm_decay: float = 0.99
    norm_epsilon: float = 1e-3
    layer_widths: Widths | None = None  # features of the layers of a pruned network, in place of those above
    dtype: Dtype = jnp.float32
    preprocess: Preprocess | None = None  # what its images go through before; no part of the network

    @property
    def scaled_stages(self) -> tuple[Stage, ...]:
        """The stages as this width and depth make them."""
        last = len(self.stages) - 1
        return tuple(
            replace(
                stage,
                repeats=math.ceil(stage.repeats * (self.depth if self.scaled_ends or 0 < i < last else 1.0)),
                features=scale_features(stage.features, self.width, keep=self.keep_features),
            )
            for i, stage in enumerate(self.stages)
        )

    @nn.compact
    def outputs(self, x: Float[Array, "b h w c"], train: Train) -> Outputs:
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": widest(self.dtype)}
        act = ACTIVATIONS[self.activation]
        conv: Callable[..., Conv] = partial(Conv, padding=self.padding, widths=self.layer_widths, **dtypes)
        norm = partial(
            BatchNorm,
            train=train,
            group_size=self.norm_group_size,
            decay=self.norm_decay,
            epsilon=self.norm_epsilon,
            **dtypes,
        )
        gate = partial(SqueezeExcite, **dtypes)
        ends = partial(scale_features, width=self.width if self.scaled_ends else 1.0, keep=self.keep_features)
        stages = self.scaled_stages
        rates = iter(depth_rates(self.stochastic_depth, sum(stage.repeats for stage in stages)))

        x = act(norm(name="stem_norm")(conv(ends(self.stem_features), (3, 3), stride=2, name="stem_conv")(x)))
        features = {"stem": x}
        entering = ends(self.stem_features)  # each block, as the network is by itself: pruning moves no shortcut
        for i, stage in enumerate(stages, 1):
            block = nn.remat(MBConv) if i <= self.remat_stages else MBConv
            for j in range(stage.repeats):
                stride = stage.stride if j == 0 else 1
                x = block(
                    stage,
                    stride,
                    stage.features,
                    stride == 1 and entering == stage.features,
                    activation=self.activation,
                    conv=conv,
                    norm=norm,
                    gate=gate,
                    stochastic_depth=StochasticDepth(next(rates), train, parent=None),
                    widths=self.layer_widths,
                    name=f"stage{i}_block{j + 1}",
                )(x)
                entering = stage.features
            features[f"stage{i}"] = x
        x = act(norm(name="top_norm")(conv(ends(self.top_features), (1, 1), name="top_conv")(x)))
        features["top"] = x
        embedding = global_average(x, dtypes["param_dtype"])
        x = Dropout(self.dropout, train=train, name="dropout")(embedding)
        return Outputs(features, embedding, Head(self.num_classes, self.single_output, name="head", **dtypes)(x))


def structure(model: EfficientNet) -> Structure:
    """Returns the network's layers; the last convolution and its norm belong to the last block."""
    stages = numbered_stages((stage.repeats for stage in model.scaled_stages), last=("top_conv", "top_norm"))
    return Structure(stem=("stem_conv", "stem_norm"), stages=stages, head="head")
