"""How ops are carried out where libraries differ, and the keys for it."""

from dataclasses import dataclass
from typing import Literal

Filter = Literal["nearest", "bilinear"]
Fill = Literal["black", "grey", "mean"]  # grey: 128; mean: the model's mean colour
_GREY = 128


@dataclass(frozen=True, kw_only=True)
class Dialect:
    filter: Filter = "bilinear"  # of what is moved
    fill: Fill = "black"  # colour of what nothing comes to lie on
    # Pixels from the centre of the first pixel back to the point that a shear leaves where it is: Pillow's is the
    # image's corner, TensorFlow's that centre.
    corner: float = 0.5
    contrast_from_area: bool = False  # contrast blends with height · width / 256, as TensorFlow's, not the mean grey


class AsPillow:
    """Part of a policy whose ops are carried out as Pillow does; filter and fill are keys of its own."""

    filter: Filter
    fill: Fill

    @property
    def dialect(self) -> Dialect:
        return Dialect(filter=self.filter, fill=self.fill)


def colour(fill: Fill, mean: tuple[int, ...]) -> tuple[int, ...]:
    """Returns a level for each channel."""
    return {"black": (0,) * len(mean), "grey": (_GREY,) * len(mean), "mean": mean}[fill]
