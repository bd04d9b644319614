"""RMSProp as TensorFlow 1 has it."""

from dataclasses import dataclass

import optax

from jaxnets.recipe.optimizer.combine import added
from jaxnets.recipe.optimizer.course import Course
from jaxnets.recipe.optimizer.decay import Decay
from jaxnets.schema import BetweenZeroAndOne, Positive, ZeroToBelowOne


@dataclass(frozen=True, kw_only=True)
class RmsProp:
    """v ← ρ·v + (1 − ρ)·g² from v = 1, m ← μ·m + rate·g / √(v + ε), w ← w − m.

    These are TensorFlow's `RMSPropOptimizer`, EfficientNet's optimizer, and timm's `RMSpropTF`. They differ from
    torch's RMSprop in the first v (there 0), in ε inside the root, and in the rate inside the momentum, whose drops
    then act little by little.
    """

    decay: BetweenZeroAndOne = 0.9  # ρ, of the mean of the squares
    momentum: ZeroToBelowOne = 0.9  # μ
    epsilon: Positive = 1e-3  # ε, added to the mean of the squares

    def rules(self, course: Course, decay: Decay) -> list[optax.GradientTransformation]:
        """Returns what takes a gradient to the change of the parameters, one after the other."""
        rule = optax.rmsprop(
            course.rate,
            decay=self.decay,
            eps=self.epsilon,
            initial_scale=1.0,
            eps_in_sqrt=True,
            momentum=self.momentum or None,
        )
        if decay.coupled:
            return [decay.along(course), rule, *course.layer_rates()]
        apart = optax.chain(optax.set_to_zero(), decay.along(course), course.by_rate())
        return [added(rule, apart), *course.layer_rates()]
