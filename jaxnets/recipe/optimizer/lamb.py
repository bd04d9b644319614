"""LAMB as timm has it."""

from dataclasses import dataclass

import optax

from jaxnets.recipe.optimizer.course import Course
from jaxnets.recipe.optimizer.decay import Decay
from jaxnets.recipe.promotion import promoting
from jaxnets.schema import Positive, ZeroToBelowOne


@dataclass(frozen=True, kw_only=True)
class Lamb:
    """Adam's update and the decay, of each tensor as long as the tensor itself (You et al. 2020, algorithm 2).

    As in timm's `Lamb`, the gradient's global norm is limited to 1 before, and a tensor without decay has a trust ratio
    of 1, as has one whose norm, or whose update's, is 0.
    """

    beta1: ZeroToBelowOne = 0.9  # of the mean of the gradients
    beta2: ZeroToBelowOne = 0.999  # of the mean of the squares
    epsilon: Positive = 1e-6  # added to the root of that mean
    always_adapt: bool = False  # the trust ratio is for tensors without decay too

    def rules(self, course: Course, decay: Decay) -> list[optax.GradientTransformation]:
        """Returns what takes a gradient to the change of the parameters, one after the other."""
        adam = optax.scale_by_adam(b1=self.beta1, b2=self.beta2, eps=self.epsilon)
        trust: optax.GradientTransformation = optax.scale_by_trust_ratio()
        if not self.always_adapt:
            trust = optax.masked(trust, decay.decayed)
        return [
            adam._replace(update=promoting(adam.update)),
            optax.add_decayed_weights(decay.weight, mask=decay.decayed),
            trust,
            course.by_rate(),
            *course.layer_rates(),
        ]
