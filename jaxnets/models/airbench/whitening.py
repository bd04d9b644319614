"""Filters that whiten the patches of the training images."""

from typing import Any

import numpy as np
from jaxtyping import Float

from jaxnets.models.airbench.network import PATCH, WHITENING
from jaxnets.models.family import Variables

_EPSILON = 5e-4  # added to the variances, so that what hardly varies is not blown up


def whitening_filters(images: Float[np.ndarray, "n h w c"], epsilon: float = _EPSILON) -> Float[np.ndarray, "i j c f"]:
    """Returns v / √(λ + ε) of each eigenvector v of the patches' second moments, and after all of them their negatives.

    The largest λ comes first. They are those of airbench's `init_whitening_conv`, in another order of a patch's numbers
    and with the sign of v chosen so that its largest entry is above 0; computed in float64.
    """
    channels, size = images.shape[3], PATCH**2 * images.shape[3]
    moments, count = np.zeros((size, size)), 0
    for image in images:
        height, width = image.shape[0] - PATCH + 1, image.shape[1] - PATCH + 1
        shifted = [image[i : i + height, j : j + width] for i in range(PATCH) for j in range(PATCH)]
        patches = np.concatenate(shifted, -1).reshape(-1, size).astype(np.float64)
        moments += patches.T @ patches
        count += len(patches)
    values, vectors = np.linalg.eigh(moments / max(count, 1))
    values, vectors = values[::-1], vectors[:, ::-1]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(size)])
    filters = vectors / np.sqrt(np.maximum(values, 0) + epsilon)
    return np.concatenate([filters, -filters], 1).reshape(PATCH, PATCH, channels, 2 * size)


def whitened(model: Any, variables: Variables, images: Float[np.ndarray, "n h w c"]) -> Variables:
    """Returns a network's variables with the filters of its images in the place of drawn ones."""
    params = dict(variables["params"])
    kernel = whitening_filters(images).astype(params[WHITENING]["kernel"].dtype)
    return {**variables, "params": {**params, WHITENING: {"kernel": kernel}}}
