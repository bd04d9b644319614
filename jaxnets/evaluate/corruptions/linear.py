"""Blurring, enlarging and moving, in float64 and at any border; exact where OpenCV's quick ways round to 1/32 pixel."""

from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float, Int64
from scipy import ndimage

Image = Float[np.ndarray, "h w *c"]
Border = Literal["nearest", "reflect"]  # beyond it: what is at the border; or the image mirrored at its edge

_OPENCV = {"nearest": cv2.BORDER_REPLICATE, "reflect": cv2.BORDER_REFLECT}


def gaussian(image: Image, sigma: float, *, border: Border = "nearest", truncate: float = 4.0) -> Image:
    """Returns an image blurred by a Gaussian of `sigma` pixels, as skimage's `filters.gaussian` does.

    The filter reaches `truncate` deviations far.
    """
    if sigma <= 0:
        return image
    reach = int(truncate * sigma + 0.5)
    if reach < min(image.shape[:2]):
        weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
        weights /= weights.sum()
        return cv2.sepFilter2D(image, -1, weights, weights, borderType=_OPENCV[border]).reshape(image.shape)
    # A filter that is longer than the image meets its mirror images several times.
    down, across = (_gaussian_matrix(side, float(sigma), border, truncate) for side in image.shape[:2])
    rows = np.tensordot(down, image, 1)
    return np.moveaxis(np.tensordot(across, rows, (1, 1)), 0, 1)


@lru_cache(maxsize=32)
def _gaussian_matrix(side: int, sigma: float, border: Border, truncate: float) -> Float[np.ndarray, "s s"]:
    return ndimage.gaussian_filter1d(np.eye(side), sigma, axis=0, mode=border, truncate=truncate)


def zoomed(image: Image, factor: float) -> Image:
    """Returns the middle of an image, enlarged linearly by a factor to its size, as scipy's `ndimage.zoom`."""
    for axis in (0, 1):
        first, weight = _taps(image.shape[axis], float(factor))
        weights = weight.reshape([-1 if i == axis else 1 for i in range(image.ndim)])
        low = image.take(first, axis)
        image = low + weights * (image.take(first + 1, axis) - low)
    return image


@lru_cache(maxsize=256)
def _taps(side: int, factor: float) -> tuple[Int64[np.ndarray, " s"], Float[np.ndarray, " s"]]:
    """Returns between which two pixels each one of an enlarged side lies, the first of them and how far from it.

    What is enlarged is the middle ⌈side / factor⌉ pixels, its first and last to the first and last; what is then more
    than the side is cut off at both ends.
    """
    middle = int(np.ceil(side / factor))
    enlarged = round(middle * factor)
    places = (np.arange(side) + (enlarged - side) // 2) * ((middle - 1) / (enlarged - 1))
    first = np.minimum(np.floor(places).astype(np.int64), middle - 2)
    return first + (side - middle) // 2, places - first


def sampled(image: Image, down: Float[np.ndarray, "h w"], across: Float[np.ndarray, "h w"]) -> Image:
    """Returns an image `[h, w, c]` read at places between its pixels, linearly, and mirrored at its edges.

    As scipy's `ndimage.map_coordinates(order=1, mode="reflect")` of each channel.
    """
    (y, ty), (x, tx) = ((np.floor(place).astype(np.int64), place - np.floor(place)) for place in (down, across))
    (y0, y1), (x0, x1) = (
        (_mirrored(first, side), _mirrored(first + 1, side))
        for first, side in zip((y, x), image.shape[:2], strict=True)
    )
    ty, tx = ty[..., None], tx[..., None]
    above = image[y0, x0] + tx * (image[y0, x1] - image[y0, x0])
    below = image[y1, x0] + tx * (image[y1, x1] - image[y1, x0])
    return above + ty * (below - above)


def _mirrored(index: Int64[np.ndarray, "h w"], side: int) -> Int64[np.ndarray, "h w"]:
    """Returns the pixel that is at a place beyond the edges too: … 1 0 | 0 1 … n−1 | n−1 n−2 …"""
    within = index % (2 * side)
    return np.minimum(within, 2 * side - 1 - within)
