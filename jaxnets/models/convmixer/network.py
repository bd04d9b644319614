"""A ConvMixer: patches, then blocks that mix places by a depthwise convolution and channels by a 1×1 one."""

from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from jaxnets.models.family import Network, Outputs, Structure, numbered_stages
from jaxnets.models.layers import BatchNorm, Conv, Head, ModuleDef, global_average, relu, widest
from jaxnets.preprocess import Preprocess


class Block(nn.Module):
    """Depthwise with a shortcut, then 1×1; each with ReLU and norm."""

    width: int
    kernel: int
    conv: ModuleDef
    norm: ModuleDef

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        y = self.conv(self.width, (self.kernel, self.kernel), groups=self.width, name="depthwise_conv")(x)
        x = x + self.norm(name="depthwise_norm")(relu(y))
        return self.norm(name="point_norm")(relu(self.conv(self.width, (1, 1), name="point_conv")(x)))


class ConvMixer(Network):
    """A network of blocks at one resolution; its features are `{"stem": …, "stage1": …}`."""

    width: int
    depth: int
    kernel: int
    patch: int  # pixels
    num_classes: int
    norm_group_size: int | None = None
    norm_decay: float = 0.9
    norm_epsilon: float = 1e-5
    dtype: Dtype = jnp.float32
    preprocess: Preprocess | None = None

    @nn.compact
    def outputs(self, x: Float[Array, "b h w c"], train: bool) -> Outputs:
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": widest(self.dtype)}
        norm = partial(
            BatchNorm,
            train=train,
            group_size=self.norm_group_size,
            decay=self.norm_decay,
            epsilon=self.norm_epsilon,
            **dtypes,
        )
        patch = (self.patch, self.patch)
        x = nn.Conv(self.width, patch, patch, padding="VALID", name="patches", **dtypes)(x)
        x = norm(name="patches_norm")(relu(x))
        features = {"stem": x}
        for i in range(self.depth):
            x = Block(self.width, self.kernel, partial(Conv, **dtypes), norm, name=f"stage1_block{i + 1}")(x)
        features["stage1"] = x
        embedding = global_average(x, dtypes["param_dtype"])
        return Outputs(features, embedding, Head(self.num_classes, name="head", **dtypes)(embedding))


def structure(model: ConvMixer) -> Structure:
    return Structure(stem=("patches", "patches_norm"), stages=numbered_stages([model.depth]), head="head")
