"""A multilayer perceptron: every pixel into every feature, for small images such as handwritten digits."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from jaxnets.dtypes import widest
from jaxnets.models.conv import conv2d
from jaxnets.models.family import Network, Outputs, Structure
from jaxnets.models.layers import Dropout, Head, global_average, relu
from jaxnets.models.mode import Train
from jaxnets.preprocess import Preprocess


class Pixels(nn.Module):
    """A dense layer that sees the whole image; its kernel `[h, w, c, f]` is that of a convolution of its size."""

    features: int
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b 1 1 f"]:
        init = nn.initializers.he_normal(in_axis=(0, 1, 2), out_axis=3)
        kernel = self.param("kernel", init, (*x.shape[1:], self.features), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        y = conv2d(x.astype(self.dtype), kernel.astype(self.dtype), stride=(1, 1), padding=((0, 0), (0, 0)))
        return y + bias.astype(self.dtype)


class MLP(Network):
    """Hidden layers with ReLU, for images of the one size that it began with.

    Its features, `{"stem": …, "stage1": …}`, are those of the hidden layers, as images of one pixel.
    """

    widths: tuple[int, ...]  # features of the hidden layers
    num_classes: int
    single_output: bool = False  # of two classes: one output, whose logits are 0 and itself
    dropout: float = 0.0  # share of each hidden layer's features left out
    dtype: Dtype = jnp.float32
    preprocess: Preprocess | None = None  # what its images go through before; no part of the network

    @nn.compact
    def outputs(self, x: Float[Array, "b h w c"], train: Train) -> Outputs:
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": widest(self.dtype)}
        features = {}
        for i, width in enumerate(self.widths):
            name = f"stage{i}" if i else "stem"
            layer = f"{name}_block1" if i else "stem_pixels"
            dense = nn.Dense(width, kernel_init=nn.initializers.he_normal(), name=layer, **dtypes) if i else None
            x = features[name] = relu((dense or Pixels(width, name=layer, **dtypes))(x))
            x = Dropout(self.dropout, train=train, name=f"{name}_dropout")(x)
        embedding = global_average(features[name], dtypes["param_dtype"])  # of the one place
        head = Head(self.num_classes, self.single_output, name="head", **dtypes)
        return Outputs(features, embedding, head(global_average(x, dtypes["param_dtype"])))


def structure(model: MLP) -> Structure:
    """Returns the network's layers; the first hidden one is the stem."""
    stages = {f"stage{i}": ((f"stage{i}_block1",),) for i in range(1, len(model.widths))}
    return Structure(stem=("stem_pixels",), stages=stages, head="head", one_size=True)
