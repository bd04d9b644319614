"""A box cut out of each image by the host, right after it is decoded and in place of the training canvas."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image

from jaxnets.data.sources.base import Reduced
from jaxnets.preprocess import with_channels


class Box(NamedTuple):
    """What is cut out of an image, in shares of its height and width, and how it is resized."""

    top: float
    left: float
    height: float
    width: float
    bicubic: bool


BoxOf = Callable[[float], Box]  # aspect (width / height) of the original → its box


class Boxes(Protocol):
    """Which boxes a batch has: a function of (seed, epoch, index) and each image's aspect."""

    def __call__(self, index: Int32[np.ndarray, " b"], epoch: Int32[np.ndarray, " b"]) -> Sequence[BoxOf]: ...


def least_for(box_of: BoxOf, height: int, width: int) -> Callable[[tuple[int, int]], tuple[int, int]]:
    """Returns how large an original must be decoded at least, for its box to have `height` × `width` pixels."""

    def least(original: tuple[int, int]) -> tuple[int, int]:
        box = box_of(original[1] / original[0])
        return math.ceil(height / box.height), math.ceil(width / box.width)

    return least


def cut_box(read: Reduced, box: Box, out: UInt8[np.ndarray, "height width c"]) -> None:
    """Resizes a box of an image into an array, antialiased.

    Bilinear ones of at most twice the sides of `out` by `squeeze_into`, the box rounded to whole pixels as torchvision
    and timm do; what is decoded smaller, shrunk more or bicubic by Pillow.
    """
    from jaxnets.data.squeeze import MOST, squeeze_into  # OpenCV, which only training wants

    height, width, channels = out.shape
    image = with_channels(read.image, channels)
    # One that was squeezed before has pixels of another size than its original's.
    tall, wide = image.shape[:2] if read.by == 1 else (side / read.by for side in read.original)
    top, left, down, across = box.top * tall, box.left * wide, box.height * tall, box.width * wide
    if box.bicubic or read.by > 1 or down > MOST * height or across > MOST * width:
        kernel = Image.Resampling.BICUBIC if box.bicubic else Image.Resampling.BILINEAR
        pixels = Image.fromarray(image if channels > 1 else image[..., 0])
        corners = (left, top, min(left + across, pixels.width), min(top + down, pixels.height))
        out[...] = np.asarray(pixels.resize((width, height), kernel, box=corners)).reshape(out.shape)
        return
    first_row, first_column = min(round(top), tall - 1), min(round(left), wide - 1)
    rows = slice(first_row, max(round(top + down), first_row + 1))
    columns = slice(first_column, max(round(left + across), first_column + 1))
    squeeze_into(out, image[rows, columns])
