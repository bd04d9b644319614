"""ResNets: the ImageNet networks (He et al. 2016a, table 1) and the CIFAR networks (section 4.2).

The bottleneck's stride sits on its 3×3 convolution (v1.5), as in every widespread implementation.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from jaxnets.models.layers import BatchNorm, Conv, Head, ModuleDef, global_average, max_pool, relu, widest


@dataclass(frozen=True, kw_only=True)
class Stage:
    blocks: int
    features: int  # of the blocks' 3×3 convolutions
    stride: int  # of the first block


class Shortcut(nn.Module):
    """What a block's output is added to, brought to its shape.

    A (He et al. 2016a, section 3.3) subsamples and appends channels of zeros, without parameters; B is a strided 1×1
    convolution and a norm. Where the shape does not change, both are the identity.
    """

    features: int
    stride: int
    option: Literal["A", "B"]
    conv: ModuleDef
    norm: ModuleDef

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
        channels = x.shape[-1]
        if self.stride == 1 and channels == self.features:
            return x
        if self.option == "A" and channels <= self.features:
            x = x[:, :: self.stride, :: self.stride]
            return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.features - channels)))
        x = self.conv(self.features, (1, 1), stride=self.stride, name="conv")(x)
        return self.norm(name="norm")(x)


class BasicBlock(nn.Module):
    """3×3 → 3×3 with a shortcut."""

    features: int
    stride: int
    shortcut: ModuleDef
    conv: ModuleDef
    norm: ModuleDef
    last_norm: ModuleDef

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
        y = self.conv(self.features, (3, 3), stride=self.stride, name="conv1")(x)
        y = relu(self.norm(name="norm1")(y))
        y = self.conv(self.features, (3, 3), name="conv2")(y)
        y = self.last_norm(name="norm2")(y)
        return relu(y + self.shortcut(self.features, self.stride, name="shortcut")(x))


class BottleneckBlock(nn.Module):
    """1×1 → 3×3 → 1×1 with a shortcut; the block ends with 4 × features."""

    features: int
    stride: int
    shortcut: ModuleDef
    conv: ModuleDef
    norm: ModuleDef
    last_norm: ModuleDef

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 4*f"]:
        y = relu(self.norm(name="norm1")(self.conv(self.features, (1, 1), name="conv1")(x)))
        y = self.conv(self.features, (3, 3), stride=self.stride, name="conv2")(y)
        y = relu(self.norm(name="norm2")(y))
        y = self.conv(4 * self.features, (1, 1), name="conv3")(y)
        y = self.last_norm(name="norm3")(y)
        return relu(y + self.shortcut(4 * self.features, self.stride, name="shortcut")(x))


BLOCKS: dict[str, type[nn.Module]] = {"basic": BasicBlock, "bottleneck": BottleneckBlock}


class ResNet(nn.Module):
    """A residual network for any input size and number of channels.

    `__call__` gives logits `[b, num_classes]`, float32 or wider. `method="features"` gives the outputs of the stem
    and of each stage by name: `{"stem": …, "stage1": …, …}`.
    """

    stages: tuple[Stage, ...]
    block: Literal["basic", "bottleneck"]
    stem: Literal["imagenet", "cifar"]  # 7×7 at stride 2 and a max-pool, or one 3×3
    stem_features: int
    num_classes: int
    shortcut: Literal["A", "B"] = "B"
    zero_init_last_norm: bool = False  # each block then starts as the identity (Goyal et al. 2017, section 5.1)
    norm_group_size: int | None = None
    norm_decay: float = 0.9
    norm_epsilon: float = 1e-5
    dtype: Dtype = jnp.float32

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool = False) -> Float[Array, "b classes"]:
        return self._outputs(x, train)[1]

    def features(self, x: Float[Array, "b h w c"], *, train: bool = False) -> dict[str, Float[Array, "b h2 w2 f"]]:
        return self._outputs(x, train)[0]

    @nn.compact
    def _outputs(self, x: Array, train: bool) -> tuple[dict[str, Array], Array]:
        param_dtype = widest(self.dtype)
        conv = partial(Conv, dtype=self.dtype, param_dtype=param_dtype)
        norm = partial(
            BatchNorm,
            train=train,
            group_size=self.norm_group_size,
            decay=self.norm_decay,
            epsilon=self.norm_epsilon,
            dtype=self.dtype,
            param_dtype=param_dtype,
        )
        last_norm = partial(norm, scale_init=nn.initializers.zeros) if self.zero_init_last_norm else norm
        shortcut = partial(Shortcut, option=self.shortcut, conv=conv, norm=norm)
        block = partial(BLOCKS[self.block], shortcut=shortcut, conv=conv, norm=norm, last_norm=last_norm)

        features = {}
        if self.stem == "imagenet":
            x = conv(self.stem_features, (7, 7), stride=2, name="stem_conv")(x)
            x = relu(norm(name="stem_norm")(x))
            x = max_pool(x, 3, 2)
        else:
            x = conv(self.stem_features, (3, 3), name="stem_conv")(x)
            x = relu(norm(name="stem_norm")(x))
        features["stem"] = x
        for i, stage in enumerate(self.stages, 1):
            for j in range(stage.blocks):
                x = block(stage.features, stage.stride if j == 0 else 1, name=f"stage{i}_block{j + 1}")(x)
            features[f"stage{i}"] = x
        logits = Head(self.num_classes, dtype=self.dtype, param_dtype=param_dtype, name="head")(
            global_average(x, param_dtype)
        )
        return features, logits


def cifar_stages(depth: int) -> tuple[Stage, ...]:
    """Returns three stages of n blocks, depth = 6n + 2 (He et al. 2016a, section 4.2)."""
    blocks = (depth - 2) // 6
    return (
        Stage(blocks=blocks, features=16, stride=1),
        Stage(blocks=blocks, features=32, stride=2),
        Stage(blocks=blocks, features=64, stride=2),
    )


def imagenet_stages(*blocks: int) -> tuple[Stage, ...]:
    """Returns the four stages of He et al. 2016a, table 1, with as many blocks each as given."""
    return tuple(
        Stage(blocks=n, features=features, stride=stride)
        for n, features, stride in zip(blocks, (64, 128, 256, 512), (1, 2, 2, 2), strict=True)
    )
