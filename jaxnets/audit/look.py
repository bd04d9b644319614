"""What is kept of one decoded image: a small thumbnail and a few numbers."""

import hashlib
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from jaxnets.preprocess import with_channels

SIDE = 32  # pixels of a thumbnail
_SAMPLED = 64  # rows and columns that the numbers are taken from, at most
_NEAR = 8  # grey levels from the median colour that still count as the same colour
_FILL = 128  # what a JPEG decoder writes where the file ends too early


class Look(NamedTuple):
    height: int  # pixels, of the original where the image was prepared
    width: int
    channels: int  # 1, 3 or 4
    digest: int  # 64 bits of a hash of shape and pixels
    thumbnail: UInt8[np.ndarray, "32 32"]  # the whole image in grey, squeezed
    flat: float  # share of the pixels that have the median colour, nearly
    colour: float  # grey levels between the channels that one pixel in a hundred exceeds
    brightness: float  # mean, 0 … 255
    lost: float  # share of the rows, from the bottom up, that hold the grey of a file that ended too early


def look(image: UInt8[np.ndarray, "h w c"], before: tuple[int, int] | None = None) -> Look:
    """Returns what is kept of an image as a source decodes it; alpha is laid over white.

    `before` are the height and width that it had before it was prepared, where it was.
    """
    height, width, channels = image.shape
    shape = f"{height} {width} {channels}".encode()
    digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8, person=shape[:16]).digest()
    down, across = (math.ceil(side / _SAMPLED) for side in (height, width))
    sample = with_channels(np.ascontiguousarray(image[::down, ::across]), 1 if channels == 1 else 3).astype(np.int16)
    middle = np.median(sample, axis=(0, 1))
    spread = sample.max(-1) - sample.min(-1)
    grey = with_channels(image, 1)[..., 0]
    small = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    shown_height, shown_width = before or (height, width)
    return Look(
        height=shown_height,
        width=shown_width,
        channels=channels,
        digest=int.from_bytes(digest, "little"),
        thumbnail=np.asarray(small),
        flat=float((np.abs(sample - middle).max(-1) <= _NEAR).mean()),
        colour=float(np.percentile(spread, 99)),
        brightness=float(sample.mean()),
        lost=_lost(grey),
    )


def _lost(grey: UInt8[np.ndarray, "h w"]) -> float:
    """Returns the share of the rows, from the bottom up, that are all of the decoder's grey."""
    if not _filled(grey[-1:])[0]:
        return 0.0
    rows = _filled(grey)[::-1]
    return float(1.0 if rows.all() else rows.argmin() / len(rows))


def _filled(grey: UInt8[np.ndarray, "h w"]) -> Bool[np.ndarray, " h"]:
    return np.asarray((np.abs(grey.astype(np.int16) - _FILL) <= 1).all(1))
