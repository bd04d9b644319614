"""LARS as timm has it."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jaxnets.recipe.optimizer.course import Course
from jaxnets.recipe.optimizer.decay import Decay
from jaxnets.schema import NonNegative, Positive, ZeroToBelowOne


@dataclass(frozen=True, kw_only=True)
class Lars:
    """SGD with momentum on (g + d·w)·η‖w‖ / (‖g‖ + d‖w‖ + ε) of each tensor (You et al. 2017, equation 6).

    As in timm's `Lars`, the rate is outside the momentum, and a tensor without decay has its gradient as it is, as has
    one whose norm, or whose gradient's, is 0.
    """

    momentum: ZeroToBelowOne = 0.9  # weight of the old value
    nesterov: bool = False  # the step looks ahead by one momentum
    trust: Positive = 0.001  # η, what the ratio of the norms is multiplied by
    epsilon: NonNegative = 1e-8  # ε, added to the norm that is divided by
    always_adapt: bool = False  # the trust ratio is for tensors without decay too

    def rules(self, course: Course, decay: Decay) -> list[optax.GradientTransformation]:
        """Returns what takes a gradient to the change of the parameters, one after the other."""
        momentum = optax.trace(self.momentum, self.nesterov) if self.momentum else optax.identity()
        return [self._adapted(decay), momentum, course.by_rate(), *course.layer_rates()]

    def _adapted(self, decay: Decay) -> optax.GradientTransformation:
        def adapted(gradient: Array, w: Array, decayed: bool) -> Array:
            if not (decayed or self.always_adapt):
                return gradient
            weight = decay.weight if decayed else 0.0
            norm, length = jnp.linalg.norm(w.ravel()), jnp.linalg.norm(gradient.ravel())
            ratio = self.trust * norm / (length + weight * norm + self.epsilon)
            return (gradient + weight * w) * jnp.where((norm > 0) & (length > 0), ratio, 1.0)

        def update(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
            return jax.tree.map(adapted, updates, params, decay.decayed(params))

        return optax.stateless(update)
