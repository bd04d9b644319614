"""Which corruptions there are, and how one is applied to one image."""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxnets.errors import UserError, nearest
from jaxnets.evaluate.corruptions import blur, digital, noise, weather
from jaxnets.evaluate.corruptions.severity import BOUNDS, SEVERITIES, Scale

STRENGTHS = (1, 2, 3, 4, 5)
# By family, in the paper's order; the last of the authors' generator are for validation, and no part of its mean.
FAMILIES: dict[str, tuple[str, ...]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
COMMON: tuple[str, ...] = tuple(name for names in FAMILIES.values() for name in names)
EXTRA: tuple[str, ...] = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
ALL = COMMON + EXTRA
OF_COLOUR = frozenset({"saturate"})  # means nothing for grey images

_ROOMS = (noise, blur, weather, digital)
_FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    name: next(getattr(room, name) for room in _ROOMS if hasattr(room, name)) for name in ALL
}
_SMALLEST = 8  # pixels of a side, that every corruption needs


def scale_of(height: int, width: int) -> Scale:
    """Returns for which size of image the severities are to be taken: that of CIFAR-10, Tiny ImageNet or ImageNet."""
    side = min(height, width)
    return next((scale for most, scale in BOUNDS if side <= most), "imagenet")


def corrupt(
    image: UInt8[np.ndarray, "h w c"], name: str, severity: int, *, seed: int = 0, example: int = 0
) -> UInt8[np.ndarray, "h w c"]:
    """Returns an image with one corruption.

    Args:
        image: grey or RGB, as the model sees it: the severities are meant for images of that size.
        name: of the corruption, one of ALL.
        severity: 1 to 5.
        seed: with `example`, the name and the severity it says what is drawn, wherever the image stands in a batch.
        example: the image's number.

    Raises:
        UserError: for a corruption or a severity that there is not, an image that is too small, or a corruption of
            colours for a grey one.
    """
    height, width, channels = image.shape
    check(name, severity, height, width, channels)
    random = np.random.default_rng([seed, zlib.crc32(name.encode()), severity, example])
    return apply(image, name, severity, random)


def check(name: str, severity: int, height: int, width: int, channels: int) -> None:
    """Raises UserError for what `corrupt` refuses."""
    if name not in _FUNCTIONS:
        raise UserError(f"there is no corruption {name!r}{nearest(name, ALL)}; there are {', '.join(ALL)}")
    if severity not in STRENGTHS:
        raise UserError(f"a severity is 1, 2, 3, 4 or 5, found {severity}")
    if min(height, width) < _SMALLEST:
        raise UserError(f"images of {height}×{width} are too small to be corrupted: {_SMALLEST} pixels are needed")
    if channels == 1 and name in OF_COLOUR:
        raise UserError(f"{name} is a change of colours, and the images are grey: leave it out")


def apply(
    image: UInt8[np.ndarray, "h w c"], name: str, severity: int, random: np.random.Generator
) -> UInt8[np.ndarray, "h w c"]:
    """Returns an image with one corruption, drawn from `random`."""
    given: Any = SEVERITIES[name][scale_of(*image.shape[:2])][severity - 1]
    numbers = given if isinstance(given, tuple) else (given,)
    found = _FUNCTIONS[name](image / 255, random, *numbers)
    # The authors cut off what is behind the point; a rounding error of a whole level is not meant by that.
    return np.floor(np.clip(found, 0, 1) * 255 + 1e-4).astype(np.uint8)
