"""Attention rollout (Abnar & Zuidema 2020): from which patches what the head sees has come, through all blocks."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array

from jaxnets.dtypes import widest
from jaxnets.errors import UserError
from jaxnets.explain.cam import Explain
from jaxnets.models.registry import family_of
from jaxnets.preprocess import Preprocess


def make_rollout(model: nn.Module, preprocess: Preprocess) -> Explain:
    """Returns a function that gives each patch's share in what the head sees; with the class token's they add up to 1.

    A block passes on A = W / 2 + I / 2: half is what its tokens take from each other, averaged over the heads, and half
    what the shortcut keeps (section 3). The product of all (equation 1) is read in the row of the class token, or in
    the average of the patches' rows, whichever the head sees. It is of no class: no label has a hand in it.

    Raises:
        UserError: if the network's blocks do not attend.
    """
    structure = family_of(model).structure(model)
    tokens = structure.tokens
    if tokens is None:
        raise UserError(
            f"attention rollout follows what tokens take from each other, and this {type(model).__name__} has no "
            "attention: take gradcam, or another method"
        )
    blocks = [block[0] for stage in structure.stages.values() for block in stage]

    def explain(variables: Any, images: Array, labels: Array) -> Array:
        x = preprocess.normalise(images, model.dtype)
        _, found = model.apply(variables, x, train=False, mutable=["intermediates"])
        rolled: Any = None
        for block in blocks:
            (weights,) = found["intermediates"][block][tokens.attention]["weights"]
            passed = weights.astype(widest(model.dtype)).mean(1)
            passed = (passed + jnp.eye(passed.shape[-1], dtype=passed.dtype)) / 2
            rolled = passed if rolled is None else jnp.matmul(passed, rolled, precision=lax.Precision.HIGHEST)
        read = rolled[:, 0] if tokens.pooled == "token" else rolled[:, tokens.first :].mean(1)
        return read[:, tokens.first :].reshape(len(images), *tokens.grid(*images.shape[1:3]))

    return explain
