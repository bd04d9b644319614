"""What a policy draws: for each example an op and its amount, one after the other."""

from enum import IntEnum
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float32, Int32

from jaxnets.recipe.augment.op import Keys
from jaxnets.recipe.augment.policy.dialect import Dialect


class Kind(IntEnum):
    """The ops of all policies; behind each, what its amount is."""

    IDENTITY = 0
    # Geometric: pixels come from elsewhere.
    SHEAR_X = 1  # pixels to the right that a pixel comes from, for each pixel down
    SHEAR_Y = 2  # pixels down, for each pixel to the right
    TRANSLATE_X = 3  # pixels to the right
    TRANSLATE_Y = 4  # pixels down
    ROTATE = 5  # degrees against the clock
    CUTOUT = 6  # pixels, half the side of the square that is filled
    # Pointwise: each level of a channel becomes another.
    POSTERIZE = 7  # highest bits that are kept
    SOLARIZE = 8  # level from which on levels are inverted
    SOLARIZE_ADD = 9  # levels that are added below 128
    INVERT = 10
    AUTOCONTRAST = 11
    EQUALIZE = 12
    BRIGHTNESS = 13  # factor: 0 black, 1 as it is; so are those that follow
    CONTRAST = 14  # 0: the mean grey everywhere
    # Neither: other channels or other pixels have a part in it.
    COLOR = 15  # 0: grey
    SHARPNESS = 16  # 0: smoothed


class Layer(NamedTuple):
    """One op for each example of a batch."""

    kind: Int32[Array, " b"]  # of `Kind`
    amount: Float32[Array, " b"]
    centre: Float32[Array, "b 2"] | None = None  # of a cutout, as shares of height and width; None: there is none


@runtime_checkable
class Policy(Protocol):
    """Which ops are drawn: a frozen dataclass whose fields are its parameters and the keys of its group."""

    @property
    def dialect(self) -> Dialect:
        """How those ops are carried out where libraries differ."""
        ...

    def draw(self, keys: Keys, height: int, width: int) -> tuple[Layer, ...]:
        """Returns the ops of each image of a batch, in their order."""
        ...
