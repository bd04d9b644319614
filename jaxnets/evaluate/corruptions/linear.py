"""Filters and enlargements as matrices: exact, at any border, and made once for each side's length.

An image `[h, w, c]` is filtered down by one matrix and across by another.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy import ndimage

Image = Float[np.ndarray, "h w *c"]


def gaussian(image: Image, sigma: float, *, border: str = "nearest", truncate: float = 4.0) -> Image:
    """Returns an image blurred by a Gaussian of `sigma` pixels, as skimage's `filters.gaussian` does."""
    if sigma <= 0:
        return image
    down, across = (_gaussian_matrix(side, float(sigma), border, truncate) for side in image.shape[:2])
    return apply(down, across, image)


def zoomed(image: Image, factor: float) -> Image:
    """Returns the middle of an image, enlarged linearly by a factor to its size, as scipy's `ndimage.zoom`."""
    down, across = (_zoom_matrix(side, float(factor)) for side in image.shape[:2])
    return apply(down, across, image)


def apply(down: Float[np.ndarray, "h2 h"], across: Float[np.ndarray, "w2 w"], image: Image) -> Image:
    """Returns an image whose columns are multiplied by one matrix and whose rows by the other."""
    rows = np.tensordot(down, image, 1)
    return np.moveaxis(np.tensordot(across, rows, (1, 1)), 0, 1)


@lru_cache(maxsize=64)
def _gaussian_matrix(side: int, sigma: float, border: str, truncate: float) -> Float[np.ndarray, "s s"]:
    return ndimage.gaussian_filter1d(np.eye(side), sigma, axis=0, mode=border, truncate=truncate)


@lru_cache(maxsize=256)
def _zoom_matrix(side: int, factor: float) -> Float[np.ndarray, "s s"]:
    """Returns what enlarges the middle of a side, and cuts what is more than the side from its ends.

    The middle has ⌈side / factor⌉ pixels.
    """
    middle = int(np.ceil(side / factor))
    before = (side - middle) // 2
    enlarged = ndimage.zoom(np.eye(middle), (factor, 1), order=1)  # one axis alone: the other stays
    trimmed = (len(enlarged) - side) // 2
    matrix = np.zeros((side, side))
    matrix[:, before : before + middle] = enlarged[trimmed : trimmed + side]
    return matrix
