"""Maps of where the features of a stage raise a class's score: Grad-CAM, Grad-CAM++ and LayerCAM.

All three weigh a stage's features A_k by the gradient g_k of the score by them, and add them up. They cost one pass
forward and one back from the logits to the stage.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int32, UInt8

from jaxnets.dtypes import widest
from jaxnets.explain.score import score
from jaxnets.explain.stage import logits_and_output
from jaxnets.preprocess import Preprocess

Explain = Callable[[Any, UInt8[Array, "b h w c"], Int32[Array, " b"]], Float[Array, "b rows columns"]]
Features = Float[Array, "b rows columns k"]
Combine = Callable[[Features, Features], Float[Array, "b rows columns"]]


def gradcam(activation: Features, gradient: Features) -> Float[Array, "b rows columns"]:
    """Returns ReLU(Σ_k α_k A_k), with α_k the average of g_k (Selvaraju et al. 2017, equations 1 and 2)."""
    weights = gradient.mean((1, 2), keepdims=True)
    return nn.relu((weights * activation).sum(-1))


def gradcam_plus_plus(activation: Features, gradient: Features) -> Float[Array, "b rows columns"]:
    """Returns ReLU(Σ_k w_k A_k), with w_k = Σ α_k ReLU(g_k) (Chattopadhay et al. 2018, equations 10, 19 and 20).

    α_k = g_k² / (2 g_k² + g_k³ Σ A_k), the form that it has where the class's score is the exponential of its logit,
    as in the authors' code and in pytorch-grad-cam's GradCAMPlusPlus. Its features come out of a ReLU; where a stage
    ends without one, what is negative counts as 0 in Σ A_k, so that 2 + g_k Σ A_k, which is divided by, is positive
    wherever g_k is.
    """
    positive = nn.relu(gradient)
    total = nn.relu(activation).sum((1, 2), keepdims=True)
    alpha = jnp.where(gradient > 0, 1 / (2 + positive * total), 0)  # g_k² cancels
    weights = (alpha * positive).sum((1, 2), keepdims=True)
    return nn.relu((weights * activation).sum(-1))


def layercam(activation: Features, gradient: Features) -> Float[Array, "b rows columns"]:
    """Returns ReLU(Σ_k ReLU(g_k) A_k), each place with its own weights (Jiang et al. 2021, equations 6 and 7)."""
    return nn.relu((nn.relu(gradient) * activation).sum(-1))


def make_cam(combine: Combine, model: nn.Module, preprocess: Preprocess, layer: str) -> Explain:
    """Returns a function of (variables, uint8 images, labels) that gives a map of the layer's rows and columns.

    The map has no unit. It is computed in float32 or wider, whatever the model computes in.
    """
    wide = widest(model.dtype)

    def explain(variables: Any, images: Array, labels: Array) -> Array:
        def seen(change: Array | None) -> tuple[Array, Array]:
            return logits_and_output(model, preprocess, variables, images, layer, change)

        shape = jax.eval_shape(lambda: seen(None)[1])

        def total(change: Array) -> tuple[Array, Array]:
            logits, activation = seen(change)
            # In evaluation no image depends on another, so that one gradient of the sum serves them all.
            return score(logits, labels, single_output=model.single_output).sum(), activation

        gradient, activation = jax.grad(total, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
        return combine(activation.astype(wide), gradient.astype(wide))

    return explain
