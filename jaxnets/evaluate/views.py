"""Test-time augmentation: an image asked in several views, whose logits are averaged.

Averaged logits are not averaged probabilities: after the softmax they are the probabilities' geometric mean.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxnets.errors import UserError
from jaxnets.preprocess import Preprocess

# Images [b, h, w, c], of NumPy's or JAX's, to images of the model's height and width.
View = Callable[[Any, int, int], Any]


@dataclass(frozen=True)
class Views:
    name: str
    said: str  # what is asked, for reports
    weights: tuple[float, ...]  # of each view's logits; their sum is 1
    of: tuple[View, ...]
    larger: bool = False  # whether they are cut out of what the centre crop would be taken of

    def fit(self, preprocess: Preprocess) -> Preprocess:
        """Returns what images are fitted by before they are seen in these views.

        Raises:
            UserError: if there is nothing around the crop to take others from.
        """
        if not self.larger:
            return preprocess
        rows, columns = preprocess.resized_sides
        if (rows, columns) == (preprocess.height, preprocess.width):
            raise UserError(
                f"--tta {self.name} takes crops beside the centre, and this model sees all of an image (its crop "
                "fraction is 1): give --tta mirror, or --tta airbench"
            )
        return replace(preprocess, height=rows, width=columns, crop_fraction=1.0)

    def arrays(self, images: Any, preprocess: Preprocess) -> list[Any]:
        """Returns the views `[b, h, w, c]` of images that `fit` has brought to size."""
        return [view(images, preprocess.height, preprocess.width) for view in self.of]


def find_views(name: str) -> Views:
    """Returns the views that `--tta` names.

    Raises:
        UserError: for another name.
    """
    if name not in VIEWS:
        raise UserError(f"--tta must be one of {', '.join(VIEWS)}, found {name!r}")
    return VIEWS[name]


def _as_it_is(images: Any, height: int, width: int) -> Any:
    return images


def _mirrored(view: View) -> View:
    return lambda images, height, width: view(images, height, width)[:, :, ::-1]


def _shifted(by: int) -> View:
    """Returns a view that is shifted down and to the right by so many pixels, with what lies at the border mirrored."""

    def view(images: Any, height: int, width: int) -> Any:
        margin = abs(by)
        rows, columns = (_reflected(np.arange(side) - by, side) for side in (height, width))
        assert margin < min(height, width)
        return images[:, rows][:, :, columns]

    return view


def _reflected(at: np.ndarray, side: int) -> np.ndarray:
    """Returns positions beyond a border where they are mirrored at it, the outermost pixel not twice."""
    at = np.abs(at)
    return np.where(at >= side, 2 * (side - 1) - at, at)


def _crop(down: float, across: float) -> View:
    """Returns a crop that lies at a share of the way from top to bottom and from left to right."""

    def view(images: Any, height: int, width: int) -> Any:
        top, left = round(down * (images.shape[1] - height)), round(across * (images.shape[2] - width))
        return images[:, top : top + height, left : left + width]

    return view


def _with_mirrors(views: tuple[View, ...]) -> tuple[View, ...]:
    return tuple(each for view in views for each in (view, _mirrored(view)))


_CROPS = tuple(_crop(*at) for at in ((0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1)))
VIEWS: Mapping[str, Views] = {
    views.name: views
    for views in (
        Views("mirror", "each image and its mirror image", (0.5,) * 2, _with_mirrors((_as_it_is,))),
        # Level 2 of airbench94 (Jordan 2024): half of it the image and its mirror image, half these shifted by a pixel.
        Views(
            "airbench",
            "each image, and it shifted by a pixel up and left and down and right, all with their mirror images",
            (0.25,) * 2 + (0.125,) * 4,
            _with_mirrors((_as_it_is, _shifted(1), _shifted(-1))),
        ),
        Views("crops", "the centre and the four corners of each image", (0.2,) * 5, _CROPS, larger=True),
        Views(
            "ten-crops",
            "the centre and the four corners of each image, with their mirror images",
            (0.1,) * 10,
            _with_mirrors(_CROPS),
            larger=True,
        ),
    )
}
