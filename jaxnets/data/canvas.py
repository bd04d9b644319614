"""The training canvas: a whole image, squeezed to one size, from which training cuts what it wants."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import UInt8

from jaxnets.preprocess import Preprocess
from jaxnets.schema import sides

_SPARE = 1.25  # times the pixels that evaluation resizes to: what is cut out of a squeezed side is enlarged less
_UNIFORM = 2.0  # times the model's size, up to which images of one size keep it


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """The size at which training images are kept. Nothing of them is cut off, and their aspect is kept beside them."""

    height: int  # pixels
    width: int
    channels: int

    def fit(self, image: np.ndarray) -> UInt8[np.ndarray, "height width channels"]:
        """Squeezes an image as `Preprocess.fit` takes it, antialiased; one of this size stays as it is."""
        return self._squeeze.fit(image)

    def keeps(self, shape: tuple[int, ...]) -> bool:
        """Tells whether `fit` leaves images of this shape as they are."""
        return shape == (self.height, self.width, self.channels)

    @cached_property
    def _squeeze(self) -> Preprocess:
        return Preprocess(
            height=self.height,
            width=self.width,
            channels=self.channels,
            mean=(0.0,) * self.channels,
            std=(1.0,) * self.channels,
            fitting="squeeze",
        )


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
