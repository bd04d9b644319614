"""Sharpness-aware minimisation."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int32


@dataclass(frozen=True, kw_only=True)
class Sam:
    """Sharpness-aware minimisation (Foret et al. 2021, algorithm 1): the gradient at w is that at w + ρ·g / ‖g‖.

    ‖g‖ is one norm over all parameters that train, of the gradient of the whole global batch, whatever devices and
    micro-batches it lies on (the authors' code with `sync_perturbations`; by default each device there has its own).
    g is that of the loss alone: decay is added by the optimizer, at w, as in torch's implementations; in the authors'
    code it is part of the loss, and of g.
    """

    radius: float  # ρ
    every: int = 1  # steps; in those between, the gradient is that at w

    @property
    def average(self) -> float:
        """The work of a step on average, as a share of one with two gradients."""
        return (1 + 1 / self.every) / 2

    def perturbed(self, params: Any, gradient: Any) -> Any:
        """Returns the parameters moved by the radius along the gradient; as they are where it is 0."""
        norm = optax.tree.norm(gradient)
        scale = jnp.where(norm > 0, self.radius / jnp.where(norm > 0, norm, 1.0), 0.0)
        return jax.tree.map(lambda w, g: w + scale.astype(w.dtype) * g, params, gradient)

    def due(self, step: Int32[Array, ""]) -> Bool[Array, ""]:
        """Tells whether the step after so many others is one of those with two gradients: each `every`-th."""
        return (step + 1) % self.every == 0
