"""The views of an image that features are computed of."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from jaxnets.preprocess import Preprocess

_AREA, _ASPECT = (0.5, 1.0), (3 / 4, 4 / 3)  # of the crops: share of the image, and width / height
_TRIES = 10  # as random resized crops have before they take all of the image


@dataclass(frozen=True)
class Mirrored:
    """What evaluation sees, mirrored."""

    preprocess: Preprocess

    @property
    def height(self) -> int:
        return self.preprocess.height

    @property
    def width(self) -> int:
        return self.preprocess.width

    @property
    def channels(self) -> int:
        return self.preprocess.channels

    def keeps(self, shape: tuple[int, ...]) -> bool:
        return False

    def fit(self, image: np.ndarray, original: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w c"]:
        return self.preprocess.fit(image, original)[:, ::-1]


@dataclass(frozen=True)
class Cropped:
    """A box of half the image or more, at random and mirrored at random, squeezed to the model's size."""

    preprocess: Preprocess
    seed: tuple[int, int]  # of this image and this view

    height = Mirrored.height
    width = Mirrored.width
    channels = Mirrored.channels
    keeps = Mirrored.keeps

    def fit(self, image: np.ndarray, original: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w c"]:
        random = np.random.default_rng(self.seed)
        rows, columns = image.shape[:2]
        tall, wide = original or (rows, columns)
        top, left, height, width = _box(random, tall, wide)
        box = image[
            slice(round(top * rows / tall), max(round((top + height) * rows / tall), round(top * rows / tall) + 1)),
            slice(
                round(left * columns / wide),
                max(round((left + width) * columns / wide), round(left * columns / wide) + 1),
            ),
        ]
        seen = replace(self.preprocess, fitting="squeeze", crop_fraction=1.0).fit(np.ascontiguousarray(box))
        return seen[:, ::-1] if random.random() < 0.5 else seen


def _box(random: np.random.Generator, height: int, width: int) -> tuple[float, float, float, float]:
    """Returns top, left, height and width of a random box, in the original's pixels."""
    for _ in range(_TRIES):
        area = random.uniform(*_AREA) * height * width
        aspect = np.exp(random.uniform(*np.log(_ASPECT)))
        tall, wide = np.sqrt(area / aspect), np.sqrt(area * aspect)
        if tall <= height and wide <= width:
            return random.uniform(0, height - tall), random.uniform(0, width - wide), tall, wide
    return 0, 0, height, width


View = Preprocess | Mirrored | Cropped


def views_of(preprocess: Preprocess, count: int, image: int) -> list[View]:
    """Returns the first `count` views of an image: as evaluation sees it, mirrored, then random crops.

    `image` is a number that is the image's own: its crops depend on nothing else, so that they can be kept.
    """
    crops = [Cropped(preprocess, (image, view)) for view in range(2, count)]
    found: list[View] = [preprocess, Mirrored(preprocess), *crops]
    return found[:count]
