"""Lion."""

from dataclasses import dataclass

import optax

from jaxnets.recipe.optimizer.course import Course
from jaxnets.recipe.optimizer.decay import Decay
from jaxnets.schema import ZeroToBelowOne


@dataclass(frozen=True, kw_only=True)
class Lion:
    """The sign of β₁·m + (1 − β₁)·g, then m ← β₂·m + (1 − β₂)·g (Chen et al. 2023, algorithm 2).

    Its rate is 3 to 10 times smaller than AdamW's, and its decay as many times larger (section 5 there).
    """

    beta1: ZeroToBelowOne = 0.9  # of the mean whose sign is the step
    beta2: ZeroToBelowOne = 0.99  # of the mean that is kept

    def rules(self, course: Course, decay: Decay) -> list[optax.GradientTransformation]:
        """Returns what takes a gradient to the change of the parameters, one after the other."""
        rule = optax.scale_by_lion(b1=self.beta1, b2=self.beta2)
        rules = [decay.along(course), rule] if decay.coupled else [rule, decay.along(course)]
        return [*rules, course.by_rate(), *course.layer_rates()]
