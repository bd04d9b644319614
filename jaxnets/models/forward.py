"""From uint8 images to what a model says of them: the one way, for everything that asks a model."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Float32, UInt8

from jaxnets.models.family import Outputs, Variables
from jaxnets.preprocess import Preprocess

Activation = Literal["softmax", "sigmoid"]

# What turns logits into probabilities; it belongs to the loss that the model was trained with.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}


def forward(
    model: nn.Module,
    preprocess: Preprocess,
    variables: Variables,
    images: UInt8[Array, "b h w c"],
    *,
    method: Literal["__call__", "features", "embed", "outputs"] = "__call__",
) -> Any:
    """Returns a model's logits `[b, classes]` of images that `Preprocess.fit` has brought to size, in evaluation mode.

    `method` asks for the outputs of its stages by name ("features"), for the pooled vector `[b, f]` that its head sees
    ("embed"), or for all of these together (`Outputs`).
    """
    x = preprocess.normalise(images, model.dtype)
    return model.apply(variables, x, train=False, method=method)


def probabilities(
    logits: Float[Array, "b classes"], activation: Activation, temperature: float | None = None
) -> Float[Array, "b classes"]:
    """Returns what the logits mean: shares of one whole (softmax), or each class by itself (sigmoid).

    The temperature, if there is one, divides them before.
    """
    return ACTIVATIONS[activation](logits if temperature is None else logits / temperature)


def profile(outputs: Outputs) -> Float32[Array, "b f"]:
    """Returns the mean of each channel after the stem and after each stage, one after another: what an image is like.

    Unlike the embedding it keeps what no class is told apart by (`jaxnets.trust.outliers`).
    """
    return jnp.concatenate([x.astype(jnp.float32).mean((1, 2)) for x in outputs.features.values()], 1)
