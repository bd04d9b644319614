"""ResNets and what grew out of them, as one network and two kinds of block.

He et al. 2016a (table 1 for ImageNet, section 4.2 for CIFAR), with pre-activation (He et al. 2016b), wider (Zagoruyko &
Komodakis 2016), with grouped convolutions (Xie et al. 2017), squeeze-and-excitation (Hu et al. 2018), the stem and
shortcut of ResNet-D (He et al. 2019, figure 2), and stochastic depth (Huang et al. 2016). The bottleneck's stride sits
on its 3×3 convolution (v1.5), as in every widespread implementation.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from jaxnets.dtypes import widest
from jaxnets.models.family import Network, Outputs, Structure, numbered_stages
from jaxnets.models.layers import (
    BatchNorm,
    Conv,
    Dropout,
    Head,
    ModuleDef,
    SqueezeExcite,
    StochasticDepth,
    Widths,
    average_pool,
    depth_rates,
    global_average,
    max_pool,
    relu,
    width_of,
)
from jaxnets.models.mode import Train
from jaxnets.preprocess import Preprocess


@dataclass(frozen=True, kw_only=True)
class Stage:
    blocks: int
    features: int  # of the blocks' 3×3 convolutions, at a group_width of 64
    stride: int  # of the first block


class Shortcut(nn.Module):
    """What a block's output is added to, brought to its shape.

    A (He et al. 2016a, section 3.3) subsamples and appends channels of zeros, without parameters; B is a strided 1×1
    convolution and a norm; D (He et al. 2019, figure 2c) averages 2×2 pixels where B would skip three of four.
    With pre-activation no norm follows the convolution.
    """

    features: int
    stride: int
    option: Literal["A", "B", "D"]
    conv: ModuleDef
    norm: ModuleDef | None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
        channels, stride = x.shape[-1], self.stride
        if self.option == "A" and channels <= self.features:
            x = x[:, ::stride, ::stride]
            return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.features - channels)))
        if self.option == "D" and stride > 1:
            x, stride = average_pool(x, stride), 1
        norm = None if self.norm is None else self.norm(name="norm")
        return self.conv(self.features, (1, 1), stride=stride, name="conv")(x, norm)


@dataclass(frozen=True, kw_only=True)
class Ops:
    """What a block is made of, bound once in the network and handed down."""

    conv: ModuleDef
    norm: ModuleDef
    last_norm: ModuleDef  # of a block's branch
    shortcut: ModuleDef
    gate: ModuleDef  # squeeze-and-excitation
    squeeze_reduction: int | None  # None: there is none
    dropout: ModuleDef | None  # between a branch's last convolutions
    groups: int
    group_width: int
    widths: Widths | None


class BasicBlock(nn.Module):
    """3×3 → 3×3 with a shortcut."""

    features: int
    stride: int
    projects: bool  # the shortcut, since the block changes its input's shape
    ops: Ops
    stochastic_depth: nn.Module

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
        ops = self.ops
        y = ops.conv(self.features, (3, 3), stride=self.stride, name="conv1")(x)
        y = relu(ops.norm(name="norm1")(y))
        y = _dropped(y, ops)
        y = ops.conv(self.features, (3, 3), name="conv2")(y)
        y = _gated(self, ops.last_norm(name="norm2")(y))
        return relu(self.stochastic_depth(y) + _shortcut(self, x, x, y))


class BottleneckBlock(nn.Module):
    """1×1 → 3×3 → 1×1 with a shortcut; the block ends with 4 × features."""

    features: int
    stride: int
    projects: bool  # the shortcut, since the block changes its input's shape
    ops: Ops
    stochastic_depth: nn.Module

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
        ops = self.ops
        inner = _inner(self.features, ops)
        y = relu(ops.norm(name="norm1")(ops.conv(inner, (1, 1), name="conv1")(x)))
        y = ops.conv(inner, (3, 3), stride=self.stride, groups=ops.groups, name="conv2")(y)
        y = relu(ops.norm(name="norm2")(y))
        y = _dropped(y, ops)
        y = ops.conv(4 * self.features, (1, 1), name="conv3")(y, ops.last_norm(name="norm3"))
        y = _gated(self, y)
        return relu(self.stochastic_depth(y) + _shortcut(self, x, x, y))


class PreactivationBasicBlock(nn.Module):
    """(norm, ReLU, 3×3) twice, with a shortcut past both (He et al. 2016b, figure 4e)."""

    features: int
    stride: int
    projects: bool  # the shortcut, since the block changes its input's shape
    ops: Ops
    stochastic_depth: nn.Module

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
        ops = self.ops
        active = relu(ops.norm(name="norm1")(x))
        y = ops.conv(self.features, (3, 3), stride=self.stride, name="conv1")(active)
        y = relu(ops.norm(name="norm2")(y))
        y = _dropped(y, ops)
        y = _gated(self, ops.conv(self.features, (3, 3), name="conv2")(y))
        return self.stochastic_depth(y) + _shortcut(self, x, active, y)


class PreactivationBottleneckBlock(nn.Module):
    """(norm, ReLU, convolution) of 1×1, 3×3 and 1×1, with a shortcut past all; the block ends with 4 × features."""

    features: int
    stride: int
    projects: bool  # the shortcut, since the block changes its input's shape
    ops: Ops
    stochastic_depth: nn.Module

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
        ops = self.ops
        inner = _inner(self.features, ops)
        active = relu(ops.norm(name="norm1")(x))
        y = ops.conv(inner, (1, 1), name="conv1")(active)
        y = relu(ops.norm(name="norm2")(y))
        y = ops.conv(inner, (3, 3), stride=self.stride, groups=ops.groups, name="conv2")(y)
        y = relu(ops.norm(name="norm3")(y))
        y = _dropped(y, ops)
        y = _gated(self, ops.conv(4 * self.features, (1, 1), name="conv3")(y))
        return self.stochastic_depth(y) + _shortcut(self, x, active, y)


def _inner(features: int, ops: Ops) -> int:
    """Returns the features of a bottleneck's 3×3 convolution: group_width in each group, at 64 features."""
    return features * ops.group_width // 64 * ops.groups


def _shortcut(block: Any, x: Array, projected: Array, branch: Array) -> Array:
    """Returns x where a block keeps its shape, and a shortcut from `projected` otherwise."""
    if not block.projects:
        return x
    return block.ops.shortcut(branch.shape[-1], block.stride, name="shortcut")(projected)


def _gated(block: Any, branch: Array) -> Array:
    ops: Ops = block.ops
    if ops.squeeze_reduction is None:
        return branch
    path = (*block.path, "squeeze", "reduce")
    squeezed = width_of(ops.widths, path, branch.shape[-1] // ops.squeeze_reduction)
    return ops.gate(squeezed, name="squeeze")(branch)


def _dropped(branch: Array, ops: Ops) -> Array:
    return branch if ops.dropout is None else ops.dropout(name="dropout")(branch)


_BLOCKS: dict[tuple[str, bool], type[nn.Module]] = {
    ("basic", False): BasicBlock,
    ("bottleneck", False): BottleneckBlock,
    ("basic", True): PreactivationBasicBlock,
    ("bottleneck", True): PreactivationBottleneckBlock,
}


class ResNet(Network):
    """A residual network; its features are `{"stem": …, "stage1": …, …}`."""

    stages: tuple[Stage, ...]
    block: Literal["basic", "bottleneck"]
    stem: Literal["imagenet", "deep", "cifar"]  # 7×7 at stride 2, or three 3×3, and a max-pool; or one 3×3
    stem_features: int
    num_classes: int
    single_output: bool = False  # of two classes: one output, whose logits are 0 and itself
    preactivation: bool = False
    shortcut: Literal["A", "B", "D"] = "B"
    groups: int = 1  # of a bottleneck's 3×3 convolution
    group_width: int = 64  # features of each group in the first stage
    squeeze_reduction: int | None = None  # channels for each feature inside squeeze-and-excitation; None: there is none
    dropout: float = 0.0  # share of the features left out between a branch's last convolutions (wide ResNets)
    stochastic_depth: float = 0.0  # share of the examples that leave out the last block's branch; fewer before it
    zero_init_last_norm: bool = False  # each block then starts as the identity (Goyal et al. 2017, section 5.1)
    remat_stages: int = 0  # first ones, whose blocks are computed again for the gradient, to need less memory
    norm_group_size: int | None = None
    norm_decay: float = 0.9
    norm_epsilon: float = 1e-5
    layer_widths: Widths | None = None  # features of the layers of a pruned network, in place of those above
    dtype: Dtype = jnp.float32
    preprocess: Preprocess | None = None  # what its images go through before; no part of the network

    @nn.compact
    def outputs(self, x: Float[Array, "b h w c"], train: Train) -> Outputs:
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": widest(self.dtype)}
        conv = partial(Conv, widths=self.layer_widths, **dtypes)
        norm = partial(
            BatchNorm,
            train=train,
            group_size=self.norm_group_size,
            decay=self.norm_decay,
            epsilon=self.norm_epsilon,
            **dtypes,
        )
        ops = Ops(
            conv=conv,
            norm=norm,
            last_norm=partial(norm, scale_init=nn.initializers.zeros) if self.zero_init_last_norm else norm,
            shortcut=partial(Shortcut, option=self.shortcut, conv=conv, norm=None if self.preactivation else norm),
            gate=partial(SqueezeExcite, **dtypes),
            squeeze_reduction=self.squeeze_reduction,
            dropout=partial(Dropout, self.dropout, train=train) if self.dropout else None,
            groups=self.groups,
            group_width=self.group_width,
            widths=self.layer_widths,
        )
        block = _BLOCKS[self.block, self.preactivation]
        rates = iter(depth_rates(self.stochastic_depth, sum(stage.blocks for stage in self.stages)))

        x = self._stem(x, conv, norm)
        features = {"stem": x}
        entering = self.stem_features  # of each block, as the network is by itself: pruning moves no shortcut
        for i, stage in enumerate(self.stages, 1):
            made = nn.remat(block) if i <= self.remat_stages else block
            leaving = stage.features * (4 if self.block == "bottleneck" else 1)
            for j in range(stage.blocks):
                stride = stage.stride if j == 0 else 1
                x = made(
                    stage.features,
                    stride,
                    stride != 1 or entering != leaving,
                    ops,
                    StochasticDepth(next(rates), train, parent=None),
                    name=f"stage{i}_block{j + 1}",
                )(x)
                entering = leaving
            features[f"stage{i}"] = x
        if self.preactivation:
            x = relu(norm(name="last_norm")(x))
        embedding = global_average(x, dtypes["param_dtype"])
        return Outputs(
            features, embedding, Head(self.num_classes, self.single_output, name="head", **dtypes)(embedding)
        )

    def _stem(self, x: Array, conv: ModuleDef, norm: ModuleDef) -> Array:
        if self.stem == "deep":
            for i in (1, 2):
                x = conv(self.stem_features // 2, (3, 3), stride=2 if i == 1 else 1, name=f"stem_conv{i}")(x)
                x = relu(norm(name=f"stem_norm{i}")(x))
            x = conv(self.stem_features, (3, 3), name="stem_conv3")(x)
        elif self.stem == "imagenet":
            x = conv(self.stem_features, (7, 7), stride=2, name="stem_conv")(x)
        else:
            x = conv(self.stem_features, (3, 3), name="stem_conv")(x)
        if not self.preactivation:  # the first block normalises otherwise
            x = relu(norm(name="stem_norm3" if self.stem == "deep" else "stem_norm")(x))
        return x if self.stem == "cifar" else max_pool(x, 3, 2)


def structure(model: ResNet) -> Structure:
    """Returns the network's layers; the norm after the last pre-activated block belongs to it."""
    stem: tuple[str, ...] = ("stem_conv",) if model.preactivation else ("stem_conv", "stem_norm")
    if model.stem == "deep":
        stem = ("stem_conv1", "stem_norm1", "stem_conv2", "stem_norm2", "stem_conv3")
        stem += () if model.preactivation else ("stem_norm3",)
    last = ("last_norm",) if model.preactivation else ()
    stages = numbered_stages((stage.blocks for stage in model.stages), last=last)
    return Structure(stem=stem, stages=stages, head="head")
