"""Maps of where the features of a stage raise a class's score: Grad-CAM, Grad-CAM++ and LayerCAM.

All three weigh a stage's features A_k by the gradient g_k of the score by them, and add them up. They cost one pass
forward and one back from the logits to the stage.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int32, UInt8

from jaxnets.dtypes import widest
from jaxnets.explain.score import score
from jaxnets.explain.stage import logits_and_output
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.efficientnet.network import EfficientNet
from jaxnets.preprocess import Preprocess

Explain = Callable[[Any, UInt8[Array, "b h w c"], Int32[Array, " b"]], Float[Array, "b rows columns"]]
Features = Float[Array, "b rows columns k"]
Combine = Callable[[Features, Features], Float[Array, "b rows columns"]]


_PIXELS = 2 * 224 * 224  # of the images that a CPU takes at a time


def at_once(model: nn.Module, images: UInt8[Array, "b h w c"]) -> int:
    """Returns how many images of a batch go forward and back together; it divides their number.

    EfficientNets on a CPU take as many as leave little memory between the layers: large pieces are new from the system
    at each call, page by page. Maps of EfficientNet-Lite0's first stage for 16 images took 2.2 times the processor time
    of a forward pass and 438 MiB; two at a time they take 1.6 times as much and 66 MiB. Convolutions of all channels
    are slower within a loop than that saves (ResNet-18: 3.2 times as much, where all together take 1.9).
    """
    count, height, width, _ = images.shape
    if jax.default_backend() != "cpu" or not isinstance(model, EfficientNet):
        return count
    most = max(_PIXELS // (height * width), 1)
    return max(n for n in range(1, min(count, most) + 1) if count % n == 0)


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
        count = at_once(model, images)
        if count == len(images):
            return together(variables, images, labels)
        some = jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]), (images, labels))
        found = lax.map(lambda part: together(variables, *part), some)
        return found.reshape(len(images), *found.shape[2:])

    def together(variables: Any, images: Array, labels: Array) -> Array:
        def seen(change: Array | None) -> tuple[Array, Array]:
            return logits_and_output(model, preprocess, variables, images, layer, change)

        with plain_convolutions():  # of the same shapes, and traced in half the time
            shape = jax.eval_shape(lambda: seen(None)[1])

        def total(change: Array) -> tuple[Array, Array]:
            logits, activation = seen(change)
            # In evaluation no image depends on another, so that one gradient of the sum serves them all.
            return score(logits, labels, single_output=model.single_output).sum(), activation

        gradient, activation = jax.grad(total, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
        return combine(activation.astype(wide), gradient.astype(wide))

    return explain
