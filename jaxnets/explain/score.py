"""The number that is explained, and how many images a program that asks for it many times takes at once."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int32, UInt8

from jaxnets.dtypes import widest
from jaxnets.models.family import Variables
from jaxnets.preprocess import Preprocess

_AT_ONCE = 8  # images: more fill no core of a CPU better, and their gradients take more memory


def score(logits: Float[Array, "b classes"], labels: Int32[Array, " b"], *, single_output: bool) -> Float[Array, " b"]:
    """Returns what is explained of each image: its label's logit.

    A network of two classes with a single output z has the logits 0 and z, and no gradient of the first. There it is
    the logit less the other class's, z or −z: the log of the odds.
    """
    own = jnp.take_along_axis(logits, labels[:, None], 1)
    if single_output:
        own = own - jnp.take_along_axis(logits, 1 - labels[:, None], 1)
    return own[:, 0]


def scores(
    model: nn.Module, variables: Variables, x: Float[Array, "b h w c"], labels: Int32[Array, " b"]
) -> Float[Array, " b"]:
    """Returns the score of normalised images, which the model casts to what it computes in: their gradient is wide."""
    logits: Any = model.apply(variables, x.astype(model.dtype), train=False)
    return score(logits, labels, single_output=model.single_output)


def normalised(model: nn.Module, preprocess: Preprocess, images: UInt8[Array, "b h w c"]) -> Any:
    """Returns images as `scores` takes them, in float32 or wider. Pixels of the mean colour are 0."""
    return preprocess.normalise(images, widest(model.dtype))


def at_once(images: int, times: int) -> int:
    """Returns how many of so many passes of a batch go through the model together; it divides their number."""
    most = max(_AT_ONCE // images, 1)
    return max(count for count in range(1, most + 1) if times % count == 0)
