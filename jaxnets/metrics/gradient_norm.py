"""How long the gradient is."""

import jax.numpy as jnp
import optax

from jaxnets.metrics.metric import Metric, Sums, Update, ratio


def _gradient_norm(update: Update) -> Sums:
    return {"steps": jnp.int32(1), "gradient_norm": optax.tree.norm(update.gradient)}


GRADIENT_NORM = Metric(_gradient_norm, ratio("gradient_norm", "steps", name="gradient_norm"))
