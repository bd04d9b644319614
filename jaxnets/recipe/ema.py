"""Averaged weights."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32

from jaxnets.models.family import Variables


@dataclass(frozen=True, kw_only=True)
class Average:
    """The exponential moving average of weights and running statistics, with TensorFlow's warm-up.

    Step t averages with min(decay, (1 + t) / (10 + t)), as EfficientNet's published code: 0.9999 from the first step on
    would still hold 61 % of the initial weights after 5,000 steps.
    """

    decay: float  # weight of the old value, once it is warm

    def __call__(self, average: Variables, variables: Variables, step: Int32[Array, ""]) -> Variables:
        """Returns the average after `step` steps were averaged before, and now these variables."""

        def updated(old: Array, new: Array) -> Array:
            t = step.astype(new.dtype)
            decay = jnp.minimum(jnp.asarray(self.decay, new.dtype), (1 + t) / (10 + t))
            return decay * old + (1 - decay) * new

        return jax.tree.map(updated, average, variables)
