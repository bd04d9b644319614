"""Deletion and insertion (Petsiuk et al. 2018, RISE, section 3.4): how well a map names the pixels that matter.

Pixels leave the image in the order of the map, the most important first, and the class's probability should fall at
once; or they come back into a blurred image, and it should rise at once. The areas below the two curves judge a map by
the model alone, without anybody's opinion of what it should look at.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int, Int32, UInt8

from jaxnets.explain.score import at_once, normalised
from jaxnets.models.forward import Activation, probabilities
from jaxnets.preprocess import Preprocess

STEPS = 32
_BLUR = 5 / 224  # of an image's longer side: the deviation of the blur that insertion begins with, as in RISE's code

Curves = Callable[
    [Any, UInt8[Array, "b h w c"], Int32[Array, " b"], Int[Array, "b places"]],
    tuple[Float[Array, "b points"], Float[Array, "b points"]],
]


def order(heat: Float[np.ndarray, "b h w"], seed: int = 0) -> Int32[np.ndarray, "b places"]:
    """Returns each pixel's rank by its map, 0 for the largest value.

    Of equal values, as where a map is 0, a fixed draw decides: by place, a corner of the image would seem to matter.
    """
    flat = heat.reshape(len(heat), -1)
    drawn = np.random.default_rng(seed).permutation(flat.shape[1])
    places = drawn[np.argsort(-flat[:, drawn], axis=1, kind="stable")]
    ranks = np.empty_like(places, dtype=np.int32)
    np.put_along_axis(ranks, places, np.arange(flat.shape[1], dtype=np.int32)[None], 1)
    return ranks


def make_curves(model: nn.Module, preprocess: Preprocess, activation: Activation, *, steps: int = STEPS) -> Curves:
    """Returns a function of (variables, uint8 images, labels, ranks of `order`) that gives both curves.

    Each has `steps` + 1 probabilities of the label: with none of the pixels deleted, or inserted, to all of them.
    Deleted pixels have the mean colour; insertion begins with the blurred image.
    """
    sides = preprocess.height, preprocess.width
    deviation = max(_BLUR * max(sides), 1.0)
    blurs = [_blur(side, deviation) for side in sides]
    bounds = np.round(np.linspace(0, sides[0] * sides[1], steps + 1)).astype(np.int32)

    def curves(variables: Any, images: Array, labels: Array, ranks: Array) -> tuple[Array, Array]:
        x = normalised(model, preprocess, images)
        down, across = (jnp.asarray(matrix, x.dtype) for matrix in blurs)
        blurred = jnp.einsum("ih,jw,bhwc->bijc", down, across, x, precision=lax.Precision.HIGHEST)
        rank = ranks.reshape(x.shape[:3])[..., None]
        count = at_once(2 * len(images), steps + 1)

        def ask(some: Array) -> Array:
            first = rank < some[:, None, None, None, None]  # [n, b, h, w, 1]
            changed = jnp.stack([jnp.where(first, 0, x), jnp.where(first, x, blurred)])
            flat = changed.reshape(-1, *x.shape[1:])
            logits: Any = model.apply(variables, flat.astype(model.dtype), train=False)
            found = probabilities(logits, activation)
            chosen = jnp.take_along_axis(found, jnp.tile(labels, 2 * len(some))[:, None], 1)
            return chosen.reshape(2, len(some), len(images))

        found = lax.map(ask, bounds.reshape(-1, count))  # [steps + 1 / n, 2, n, b]
        deletion, insertion = found.transpose(1, 3, 0, 2).reshape(2, len(images), -1)
        return deletion, insertion

    return curves


def area(curve: Float[np.ndarray, "*b points"]) -> Float[np.ndarray, "*b"]:
    """Returns the area below a curve over 0…1, by trapezoids; of a constant 1 it is 1."""
    return (curve.sum(-1) - (curve[..., 0] + curve[..., -1]) / 2) / (curve.shape[-1] - 1)


def _blur(side: int, deviation: float) -> Float[np.ndarray, "side side"]:
    """Returns the matrix that blurs a side; at the ends the weights are shared by what is there."""
    place = np.arange(side)
    weights = np.exp(-((place[:, None] - place) ** 2) / (2 * deviation**2))
    return weights / weights.sum(1, keepdims=True)
