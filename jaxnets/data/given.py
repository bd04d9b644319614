"""What a user hands over as images from Python: arrays, paths and Pillow's images, one or many."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxnets.data.decode import decode, decode_pillow

_CHANNELS = (1, 3, 4)

Given = str | os.PathLike[str] | Image.Image | np.ndarray | Any  # one image


def as_images(given: Given | Iterable[Given], white_level: int) -> Iterator[UInt8[np.ndarray, "..."]]:
    """Yields uint8 images `[h, w]` or `[h, w, c]`, one at a time.

    Args:
        given: one image, or many: a path, an image of Pillow's, an array `[h, w]` or `[h, w, c]` with c = 1, 3 or 4; a
            list or an iterator of these; or an array `[n, h, w, c]` or `[n, h, w]` of n images.
        white_level: of images of 16 bits, as `decode` takes it.

    Raises:
        ValueError: for what is no image, and for an array that could be read in two ways.
        CorruptImage: for a file that cannot be decoded.
    """
    if isinstance(given, str | os.PathLike | Image.Image):
        yield as_image(given, white_level)
    elif hasattr(given, "__array__") and not isinstance(given, list | tuple):
        yield from _of_array(np.asarray(given))
    elif isinstance(given, Iterable):
        for image in given:
            yield as_image(image, white_level)
    else:
        raise ValueError(f"images are arrays, paths or Pillow's, one or a list of them, found {type(given).__name__}")


def as_image(given: Given, white_level: int) -> UInt8[np.ndarray, "..."]:
    """Returns one image as an array; as `as_images`."""
    if isinstance(given, Image.Image):
        return decode_pillow(given, white_level)
    if isinstance(given, str | os.PathLike):
        path = Path(given).expanduser()
        if path.is_dir():
            raise ValueError(f"{path} is a folder, and one image is expected: give its files, or use jaxnets.predict")
        return decode(path, str(path), white_level)
    image = np.asarray(given)
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in _CHANNELS):
        raise ValueError(f"an image is [h, w] or [h, w, c] with c = 1, 3 or 4, found {image.shape}{_hint(image.shape)}")
    return image


def _of_array(array: np.ndarray) -> Iterator[np.ndarray]:
    shape = array.shape
    if array.ndim == 2 or (array.ndim == 3 and shape[2] in _CHANNELS):
        yield array
    elif array.ndim == 3 and shape[0] in (3, 4):
        raise ValueError(
            f"an array {shape} may be {shape[0]} grey images, or one whose channels come first: give [n, h, w, 1] or a "
            f"list for the former, array.transpose(1, 2, 0) for the latter"
        )
    elif array.ndim == 3 or (array.ndim == 4 and shape[3] in _CHANNELS):
        yield from array
    else:
        raise ValueError(
            f"images are [h, w], [h, w, c], [n, h, w] or [n, h, w, c] with c = 1, 3 or 4, found {shape}{_hint(shape)}"
        )


def _hint(shape: tuple[int, ...]) -> str:
    return ": channels come last here" if len(shape) >= 3 and shape[-3] in _CHANNELS else ""
