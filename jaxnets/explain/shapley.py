"""SHAP: Shapley values of an image's regions, by the partition explainer of the package shap (the extra `explain`)."""

from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Array

from jaxnets.errors import UserError
from jaxnets.explain.cam import Explain
from jaxnets.explain.score import score
from jaxnets.models.forward import forward
from jaxnets.preprocess import Preprocess

EVALUATIONS = 512  # of the model, for each image
_AT_ONCE = 32  # images


def make_shap(model: nn.Module, preprocess: Preprocess, *, evaluations: int = EVALUATIONS) -> Explain:
    """Returns a function that gives each pixel's Shapley value, summed over its channels, in logits.

    The image is halved again and again, and the halves share what they add to the score (Owen values, which the
    package computes in place of the exponentially many Shapley values; Lundberg & Lee 2017, equation 4). A region that
    is left out is blurred over half of the image. All pixels together come to the difference of the scores of the
    image and of the blurred one. It is no program of JAX's, and takes one image after another.

    Raises:
        UserError: if the package is not installed.
    """
    shap = _package()
    shape = preprocess.height, preprocess.width, preprocess.channels
    blur = max(preprocess.width // 2, 2), max(preprocess.height // 2, 2)
    masker: Any = None

    def ask(variables: Any, images: Array, labels: Array) -> Array:
        logits = forward(model, preprocess, variables, images)
        return score(logits, labels, single_output=model.single_output)

    compiled = jax.jit(ask)

    def explain(variables: Any, images: Any, labels: Any) -> Any:  # arrays of NumPy's
        nonlocal masker
        if masker is None:  # its tree of regions takes seconds to build
            masker = shap.maskers.Image(f"blur({blur[0]},{blur[1]})", shape)
        found = []
        for image, label in zip(images, labels, strict=True):
            masker.last_xid = None  # it knows the image that it has blurred by its address, which another may get

            def answer(masked: np.ndarray, label: int = int(label)) -> np.ndarray:
                rounded = masked.reshape(-1, *shape).round().clip(0, 255).astype(np.uint8)
                # Always as many, so that there is one program.
                padded = np.pad(rounded, ((0, -len(rounded) % _AT_ONCE), (0, 0), (0, 0), (0, 0)))
                chunks = padded.reshape(-1, _AT_ONCE, *shape)
                same = np.full(_AT_ONCE, label, np.int32)
                scores = np.concatenate([np.asarray(compiled(variables, chunk, same)) for chunk in chunks])
                return scores[: len(rounded)].astype(np.float64)

            explainer = shap.PartitionExplainer(answer, masker)
            values = explainer(
                image[None].astype(np.float32), max_evals=evaluations, batch_size=_AT_ONCE, silent=True
            ).values
            found.append(values.reshape(shape).sum(-1).astype(np.float32))
        return np.stack(found)

    return explain


def _package() -> Any:
    try:
        import shap
    except ImportError as error:
        raise UserError(
            f"SHAP needs the package shap, which cannot be imported ({error}): install it with "
            f"pip install 'jaxnets[explain]', or take another method"
        ) from error
    return shap
