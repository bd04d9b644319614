"""A rate that runs straight from one given point to the next."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from jaxnets.recipe.schedule.shape import Shape


@dataclass(frozen=True, kw_only=True)
class Piecewise:
    """Straight lines between points, as FFCV's training of ImageNet has them; before and after them it is constant."""

    epochs: tuple[float, ...] | None = None  # where the points lie, ascending; or steps
    steps: tuple[float, ...] | None = None  # the same in steps
    shares: tuple[float, ...] | None = None  # of the peak, one for each point

    @property
    def points(self) -> tuple[float, ...]:
        """Where the points lie, in the unit that was given."""
        return (self.steps if self.epochs is None else self.epochs) or ()

    def shape(self, positions: tuple[float, ...]) -> Shape:
        """Returns the shape through points at these positions."""
        at, shares = np.asarray(positions, float), np.asarray(self.shares, float)
        return lambda position: jnp.interp(position * 1.0, jnp.asarray(at, float), jnp.asarray(shares, float))
