"""A rate that falls by the same factor every so many epochs."""

from dataclasses import dataclass

from jaxnets.recipe.schedule.shape import Shape, first_at, staircase
from jaxnets.schema import AboveZeroToOne, Count, Positive


@dataclass(frozen=True, kw_only=True)
class Exponential:
    """EfficientNet's schedule (Tan & Le 2019, section 5.2; `build_learning_rate` of its published code)."""

    factor: AboveZeroToOne = 0.97  # what the rate is multiplied by
    every_epochs: Positive = 2.4  # how often; or every_steps
    every_steps: Count | None = None  # the same in steps; None: by every_epochs
    staircase: bool = True  # it falls at once; false: a little at each step

    def shape(self, every: float, length: float) -> Shape:
        """Returns the shape over `length` positions, of which `every` make one fall.

        Floors are taken of exact numbers: the n-th fall is at the first whole position at or after n · `every`.
        """
        if self.staircase and every >= 1:
            return staircase([first_at(n * every) for n in range(1, int(length / every) + 2)], self.factor)
        return lambda position: self.factor ** (position / every)
