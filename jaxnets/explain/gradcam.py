"""Grad-CAM (Selvaraju et al. 2017): which places of a stage raise a class's logit."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int32, UInt8

from jaxnets.errors import UserError, nearest
from jaxnets.models.family import Variables
from jaxnets.models.forward import forward
from jaxnets.models.registry import family_of
from jaxnets.preprocess import Preprocess

Explain = Callable[
    [Any, UInt8[Array, "b h w c"], Int32[Array, " b"]], tuple[Float[Array, "b rows columns"], Float[Array, "b classes"]]
]


def stages(model: nn.Module) -> dict[str, str]:
    """Returns the stages that can be asked, first to last, with the layer that each ends with."""
    return family_of(model).structure(model).stage_ends()


def make_gradcam(model: nn.Module, preprocess: Preprocess, layer: str) -> Explain:
    """Returns a function of (variables, uint8 images, labels) that gives the maps and the logits.

    The map of an image is ReLU(Σ_k α_k A_k), with A the layer's output and α_k the gradient of the label's logit by
    A_k, averaged over rows and columns (equations 1 and 2); it has the layer's rows and columns and no unit.
    """

    def explain(variables: Any, images: Array, labels: Array) -> tuple[Array, Array]:
        def seen(change: Array | None) -> tuple[Array, Array]:
            return logits_and_output(model, preprocess, variables, images, layer, change)

        shape = jax.eval_shape(lambda: seen(None)[1])

        def score(change: Array) -> tuple[Array, tuple[Array, Array]]:
            logits, activation = seen(change)
            # In evaluation no image depends on another, so that one gradient of the sum serves them all.
            return jnp.take_along_axis(logits, labels[:, None], 1).sum(), (activation, logits)

        gradient, (activation, logits) = jax.grad(score, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
        weights = gradient.mean((1, 2), keepdims=True, dtype=jnp.float32)
        return nn.relu((weights * activation).sum(-1)), logits

    return explain


def logits_and_output(
    model: nn.Module, preprocess: Preprocess, variables: Variables, images: Array, layer: str, change: Array | None
) -> tuple[Float[Array, "b classes"], Float[Array, "b rows columns c"]]:
    """Returns the logits and the layer's output, after adding `change` to the latter."""
    outputs = []

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        y = call(*args, **kwargs)
        if context.module.path == (layer,) and context.method_name == "__call__":
            y = y if change is None else y + change
            outputs.append(y)
        return y

    with nn.intercept_methods(intercept):
        logits = forward(model, preprocess, variables, images)
    return logits, outputs[0]


def find_stage(model: nn.Module, stage: str | None) -> str:
    """Returns the layer of a stage; of the last one without a name.

    Raises:
        UserError: for a stage that the model does not have.
    """
    known = stages(model)
    if stage is None:
        return list(known.values())[-1]
    if stage not in known:
        raise UserError(f"there is no stage {stage!r}{nearest(stage, known)}; the model has {', '.join(known)}")
    return known[stage]


def to_image(
    heat: Float[np.ndarray, "rows columns"], preprocess: Preprocess, height: int, width: int
) -> Float[np.ndarray, "height width"]:
    """Returns a map brought to an image's own size, 0…1 with 1 at its peak; 0 where the model does not look."""
    from PIL import Image

    top, left, bottom, right = preprocess.region(height, width)
    peak = heat.max()
    scaled = heat / peak if peak > 0 else heat
    seen = Image.fromarray(scaled.astype(np.float32)).resize((right - left, bottom - top), Image.Resampling.BICUBIC)
    whole = np.zeros((height, width), np.float32)
    rows, columns = slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width))
    part = np.asarray(seen)[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    whole[rows, columns] = part.clip(0, 1)
    return whole
