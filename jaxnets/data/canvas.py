"""The training canvas: a whole image, squeezed to one size, from which training cuts what it wants."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from jaxnets.data.sources.base import Reduced, Source
from jaxnets.preprocess import Preprocess, with_channels
from jaxnets.schema import sides

_SPARE = 1.25  # times the pixels that evaluation resizes to: what is cut out of a squeezed side is enlarged less
_UNIFORM = 2.0  # times the model's size, up to which images of one size keep it


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """The size at which training images are kept. Nothing of them is cut off, and their aspect is kept beside them."""

    height: int  # pixels
    width: int
    channels: int

    def fit(
        self, image: np.ndarray, original: tuple[int, int] | None = None
    ) -> UInt8[np.ndarray, "height width channels"]:
        """Squeezes an image as `squeeze` does, into a new array; its `original` size makes no difference."""
        out = np.empty((self.height, self.width, self.channels), np.uint8)
        self.squeeze(image, out)
        return out

    def squeeze(self, image: np.ndarray, out: UInt8[np.ndarray, "height width channels"]) -> None:
        """Squeezes an image into an array, antialiased; one of its size stays as it is.

        Args:
            image: as `Preprocess.fit` takes it.
            out: what is written to, of consecutive rows.

        Raises:
            ValueError: as `Preprocess.fit`.
        """
        self.squeeze_reduced(Reduced(image, (image.shape[0], image.shape[1])), out)

    def squeeze_reduced(self, read: Reduced, out: UInt8[np.ndarray, "height width channels"]) -> None:
        """Squeezes what `read_reduced` has read, as `squeeze` does.

        What was decoded smaller, or has more than twice a side of the canvas, is resized by Pillow's bilinear filter,
        another by what comes near to it and is quicker.
        """
        from jaxnets.data.squeeze import MOST, resize_into, squeeze_into  # OpenCV, which only training wants

        image = with_channels(read.image, self.channels)
        # One that was squeezed before has pixels of another size than its original's.
        height, width = image.shape[:2] if read.by == 1 else (side / read.by for side in read.original)
        if self.keeps(image.shape) and read.by == 1:
            out[...] = image
        elif read.by > 1 or height > MOST * self.height or width > MOST * self.width:
            resize_into(out, image, height, width)
        else:
            squeeze_into(out, image)

    def keeps(self, shape: tuple[int, ...]) -> bool:
        """Tells whether `fit` leaves images of this shape as they are."""
        return shape == (self.height, self.width, self.channels)


def canvas_for(source: Source, preprocess: Preprocess, asked: int | tuple[int, int] | None) -> Canvas:
    """Returns the canvas for a source's images: that on which they are stored, or the one that is chosen."""
    stored = source.stored
    if stored is not None and stored.squeezed:
        return Canvas(height=stored.height, width=stored.width, channels=preprocess.channels)
    return choose_canvas(preprocess, source.image_size, asked)


def choose_canvas(
    preprocess: Preprocess, source_size: tuple[int, int] | None, asked: int | tuple[int, int] | None
) -> Canvas:
    """Returns the canvas for a model: of the size that is asked for, or one that follows from the images.

    Images of one size (`source_size`, height and width) keep it where it is at most twice the model's. Others get the
    size that evaluation resizes to, and a quarter more.
    """
    p = preprocess
    if asked is not None:
        height, width = sides(asked)
    elif source_size is not None and all(
        have <= _UNIFORM * want for have, want in zip(source_size, (p.height, p.width), strict=True)
    ):
        height, width = source_size
    else:
        height, width = (math.ceil(side * _SPARE) for side in p.resized_sides)
    return Canvas(height=height, width=width, channels=p.channels)
