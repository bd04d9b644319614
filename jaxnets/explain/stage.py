"""The stages of a network, and what they give to the rest of it."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxnets.errors import UserError, nearest
from jaxnets.models.family import Variables
from jaxnets.models.forward import forward
from jaxnets.models.registry import family_of
from jaxnets.preprocess import Preprocess


def stages(model: nn.Module) -> dict[str, str]:
    """Returns the stages that can be asked, first to last, with the layer that each ends with."""
    return family_of(model).structure(model).stage_ends()


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


def logits_and_output(
    model: nn.Module, preprocess: Preprocess, variables: Variables, images: Array, layer: str, change: Array | None
) -> tuple[Float[Array, "b classes"], Float[Array, "b rows columns c"]]:
    """Returns the logits and the layer's output, after adding `change` to the latter.

    Of tokens it is those of the patches, as the rows and columns that they have in the image.
    """
    outputs = []
    tokens = family_of(model).structure(model).tokens
    path = tuple(layer.split("/"))

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        y = call(*args, **kwargs)
        if context.module.path != path or context.method_name != "__call__":
            return y
        if tokens is None:
            y = y if change is None else y + change
            outputs.append(y)
            return y
        b, _, c = y.shape
        before, patches = y[:, : tokens.first], y[:, tokens.first :]
        patches = patches.reshape(b, *tokens.grid(*images.shape[1:3]), c)
        patches = patches if change is None else patches + change
        outputs.append(patches)
        return jnp.concatenate([before, patches.reshape(b, -1, c)], 1)

    with nn.intercept_methods(intercept):
        logits = forward(model, preprocess, variables, images)
    return logits, outputs[0]
