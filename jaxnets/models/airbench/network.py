"""The plain network of the CIFAR-10 speed runs, which learns most in few epochs.

Jordan 2024 (arXiv 2404.00498, section 3.1), in the line of tysam's hlb-CIFAR10 and Page's 'How to train your ResNet':
a convolution whose filters whiten the patches of the training images and never train, and three groups of two or three
3×3 convolutions, which begin as the identity. The authors' head has no bias; the one here starts at 0.
"""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from jaxnets.dtypes import widest
from jaxnets.models.family import Network, Outputs, Structure, numbered_stages
from jaxnets.models.layers import ACTIVATIONS, BatchNorm, Bias, Conv, Head, ModuleDef, global_average, max_of_tiles
from jaxnets.models.mode import Train
from jaxnets.preprocess import Preprocess

WHITENING = "whitening"  # the layer whose filters are made from training images
PATCH = 2  # pixels a side of what it whitens


def dirac(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Returns a 3×3 kernel whose first features are the channels themselves, and the others drawn.

    They are uniform in ± 1 / √(i·j·c), as PyTorch initialises convolutions.
    """
    bound = (shape[0] * shape[1] * shape[2]) ** -0.5
    kernel = jax.random.uniform(key, shape, dtype, -bound, bound)
    same = min(shape[2], shape[3])
    identity = jnp.zeros((*shape[:3], same), dtype)
    identity = identity.at[shape[0] // 2, shape[1] // 2, jnp.arange(same), jnp.arange(same)].set(1)
    return kernel.at[..., :same].set(identity)


class Group(nn.Module):
    """Convolution, max-pool, norm, activation, and again without the pool; with three, a shortcut past the last two."""

    features: int
    convolutions: int  # 2 or 3
    conv: ModuleDef
    norm: ModuleDef
    activation: Literal["gelu", "relu", "silu"]

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
        active = ACTIVATIONS[self.activation]
        x = max_of_tiles(self.conv(self.features, (3, 3), name="conv1")(x), 2)
        x = first = active(self.norm(name="norm1")(x))
        for i in range(2, self.convolutions + 1):
            x = self.norm(name=f"norm{i}")(self.conv(self.features, (3, 3), name=f"conv{i}")(x))
            if i == 3:
                x = x + first
            x = active(x)
        return x


class Airbench(Network):
    """Its features are `{"stem": …, "stage1": …, "stage2": …, "stage3": …}`, one group in each stage."""

    widths: tuple[int, ...]  # features of the groups
    convolutions: Literal[2, 3]  # of a group
    scale: float  # of the embedding, and so of the logits
    num_classes: int
    single_output: bool = False  # of two classes: one output, whose logits are 0 and itself
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    norm_group_size: int | None = None
    norm_decay: float = 0.6
    norm_epsilon: float = 1e-12
    dtype: Dtype = jnp.float32
    preprocess: Preprocess | None = None  # what its images go through before; no part of the network

    @nn.compact
    def outputs(self, x: Float[Array, "b h w c"], train: Train) -> Outputs:
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": widest(self.dtype)}
        conv = partial(Conv, kernel_init=dirac, **dtypes)
        norm = partial(
            BatchNorm,
            train=train,
            group_size=self.norm_group_size,
            decay=self.norm_decay,
            epsilon=self.norm_epsilon,
            learned_scale=False,
            **dtypes,
        )
        filters = 2 * PATCH**2 * x.shape[-1]
        x = Conv(filters, (PATCH, PATCH), padding="valid", name=WHITENING, **dtypes)(x)
        x = ACTIVATIONS[self.activation](Bias(name="whitening_bias", **dtypes)(x))
        features = {"stem": x}
        for i, width in enumerate(self.widths, 1):
            x = Group(width, self.convolutions, conv, norm, self.activation, name=f"stage{i}_block1")(x)
            features[f"stage{i}"] = x
        largest = nn.max_pool(x, x.shape[1:3])  # of all places: one is left
        embedding = global_average(largest, dtypes["param_dtype"]) * self.scale
        return Outputs(
            features, embedding, Head(self.num_classes, self.single_output, name="head", **dtypes)(embedding)
        )


def structure(model: Airbench) -> Structure:
    """Returns the network's layers; the whitening filters never train."""
    return Structure(
        stem=(WHITENING, "whitening_bias"),
        stages=numbered_stages(1 for _ in model.widths),
        head="head",
        fixed=(WHITENING,),
    )
