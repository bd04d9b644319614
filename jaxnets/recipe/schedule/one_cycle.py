"""A rate that rises to its peak and falls to nearly nothing, while the momentum does the opposite."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp

from jaxnets.recipe.schedule.shape import Shape
from jaxnets.schema import ZeroToOne


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """The one-cycle policy (Smith & Topin 2018) as torch's OneCycleLR has it, in its two phases.

    The peak is at `rise` times the steps less one, which need not be whole, and the last step has the final rate.
    """

    rise: ZeroToOne = 0.3  # share of the run in which the rate rises
    start: ZeroToOne = 0.04  # share of the peak that it begins with (torch: 1 / div_factor)
    final: ZeroToOne = 4e-6  # share of the peak that it ends with (torch: start / final_div_factor)
    form: Literal["cosine", "linear"] = "cosine"
    # Of sgd, and adamw's beta1: at both ends of the run, and at the peak of the rate; None: it is not scheduled.
    momentum: tuple[float, ...] | None = (0.95, 0.85)

    def shape(self, length: float) -> Shape:
        """Returns the shape of the rate over so many positions."""
        return self._course(length, self.start, 1.0, self.final)

    def momentum_at(self, length: float) -> Callable[[Any], Any] | None:
        """Returns the momentum at each position; None where it is not scheduled."""
        if self.momentum is None:
            return None
        ends, peak = self.momentum
        return self._course(length, ends, peak, ends)

    def _course(self, length: float, first: float, peak: float, last: float) -> Callable[[Any], Any]:
        end = length - 1
        turn = self.rise * length - 1

        def at(position: Any) -> Any:
            rising = self._between(first, peak, position / max(turn, 1e-9))
            falling = self._between(peak, last, (position - turn) / max(end - turn, 1e-9))
            return jnp.where(position <= turn, rising, falling)

        return at

    def _between(self, a: float, b: float, share: Any) -> Any:
        share = jnp.clip(share, 0, 1)
        if self.form == "linear":
            return a + (b - a) * share
        return b + (a - b) * (1 + jnp.cos(jnp.pi * share)) / 2
