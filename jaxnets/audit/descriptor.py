"""A perceptual hash of thumbnails that keeps its numbers: what is alike has a large inner product."""

import math
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float32, Int32, UInt8

TURNS = (
    "",
    "mirrored",
    "upside down",
    "rotated by 180°",
    "transposed",
    "rotated by 90°",
    "rotated by 270°",
    "transversed",
)
_KEPT = 8  # lowest frequencies of each side, as in pHash
_ROWS = 1024  # images compared with all others at a time
_COLUMNS = 16384


def describe(thumbnails: UInt8[np.ndarray, "n s s"]) -> Float32[np.ndarray, "n 64"]:
    """Returns the 8×8 lowest coefficients of the discrete cosine transform, of length 1.

    The mean is left out, so that brightness and contrast do not count. Natural images have amplitudes that fall as one
    over the frequency; weighted with it, all coefficients have their say. Of an image of one colour it is 0.
    """
    side = thumbnails.shape[1]
    frequency, pixel = np.arange(_KEPT)[:, None], np.arange(side)[None]
    transform = np.cos(math.pi * frequency * (2 * pixel + 1) / (2 * side)).astype(np.float32)
    weight = np.sqrt(frequency**2 + frequency.T**2).astype(np.float32)
    found = np.empty((len(thumbnails), _KEPT * _KEPT), np.float32)
    for start in range(0, len(thumbnails), _ROWS):
        chunk = thumbnails[start : start + _ROWS].astype(np.float32)
        found[start : start + _ROWS] = ((transform @ chunk @ transform.T) * weight).reshape(len(chunk), -1)
    norm = np.linalg.norm(found, axis=1, keepdims=True)
    return np.divide(found, norm, out=np.zeros_like(found), where=norm > side)


def turn(found: Float32[np.ndarray, "n 64"], way: int) -> Float32[np.ndarray, "n 64"]:
    """Returns the descriptors of the images mirrored or rotated as `TURNS[way]`; `turn_images` does it to pixels."""
    square = found.reshape(-1, _KEPT, _KEPT)
    if way & 4:
        square = square.transpose(0, 2, 1)
    sign = (-1.0) ** np.arange(_KEPT, dtype=np.float32)
    if way & 1:
        square = square * sign
    if way & 2:
        square = square * sign[:, None]
    return np.ascontiguousarray(square).reshape(-1, _KEPT * _KEPT)


def turn_images(images: np.ndarray, way: int) -> np.ndarray:
    """Returns images `[n, h, w]` transposed, then mirrored, then turned upside down, as the bits of `way` say."""
    if way & 4:
        images = images.transpose(0, 2, 1)
    if way & 1:
        images = images[:, :, ::-1]
    if way & 2:
        images = images[:, ::-1]
    return images


def alike(
    found: Float32[np.ndarray, "n 64"], threshold: float, progress: Callable[[int], None] = lambda _: None
) -> Iterator[tuple[Int32[np.ndarray, " m"], Int32[np.ndarray, " m"], int, Float32[np.ndarray, " m"]]]:
    """Yields pairs i < j where i, turned, and j have an inner product above the threshold: i, j, way and product.

    Every image is compared with every other, in blocks of matrix products: nothing is missed, and of 100,000 images it
    takes minutes. `progress` is told how many images have been compared.
    """
    for start in range(0, len(found), _ROWS):
        stop = min(start + _ROWS, len(found))
        for way in range(len(TURNS)):
            query = turn(found[start:stop], way)
            for left in range(start, len(found), _COLUMNS):
                product = query @ found[left : left + _COLUMNS].T
                at = np.flatnonzero(product > threshold)
                i, j = np.divmod(at, product.shape[1])
                near = product.ravel()[at]
                i, j = i + start, j + left
                later = j > i
                if later.any():
                    yield i[later].astype(np.int32), j[later].astype(np.int32), way, near[later]
        progress(stop)
