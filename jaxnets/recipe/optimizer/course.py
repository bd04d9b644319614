"""What an optimizer follows over the steps: the rate, and the momentum where it is scheduled."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import jax
import optax

from jaxnets.recipe.groups import rates_like
from jaxnets.recipe.schedule.table import Schedule


@dataclass(frozen=True, kw_only=True)
class Course:
    rate: Schedule
    peak: float  # the largest rate, of which the schedule is a share
    momentum: Schedule | None = None  # None: the optimizer's own, at every step
    by_layer: Mapping[str, float] | None = None  # what the rate of each layer is multiplied by; None: 1
    factor: float = 1.0  # what all rates are multiplied by beside

    def since(self, start: int) -> "Course":
        """Returns the course of what begins to train after so many steps, by its own count of them."""
        rate, momentum = self.rate, self.momentum
        later = None if momentum is None else (lambda count: momentum(count + start))
        return replace(self, rate=lambda count: rate(count + start), momentum=later)

    def by_rate(self) -> optax.GradientTransformation:
        """Returns what multiplies by the negative rate, the same for all layers."""
        return optax.scale_by_learning_rate(self.rate)

    def layer_rates(self) -> list[optax.GradientTransformation]:
        """Returns what multiplies by each layer's own factor; nothing where that is 1."""
        if self.by_layer is None:
            return [] if self.factor == 1 else [optax.scale(self.factor)]
        by_layer = {layer: self.factor * rate for layer, rate in self.by_layer.items()}

        def scaled(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
            return jax.tree.map(lambda update, rate: update * rate, updates, rates_like(updates, by_layer))

        return [optax.stateless(scaled)]
