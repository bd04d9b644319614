"""Momentum that changes from step to step, with torch's semantics."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int32

from jaxnets.recipe.promotion import promoting
from jaxnets.recipe.schedule.table import Schedule


class ScheduledTrace(NamedTuple):
    steps: Int32[Array, ""]
    trace: optax.Updates


def scheduled_trace(momentum: Schedule, *, nesterov: bool) -> optax.GradientTransformation:
    """Returns torch's SGD without dampening: v ← μ·v + g, and the update v, or g + μ·v; μ is that of the step."""

    def init(params: optax.Params) -> ScheduledTrace:
        return ScheduledTrace(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(
        updates: optax.Updates, state: ScheduledTrace, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ScheduledTrace]:
        del params
        factor = momentum(state.steps)
        follow = lambda g, v: g + factor.astype(g.dtype) * v  # noqa: E731
        trace = jax.tree.map(follow, updates, state.trace)
        return jax.tree.map(follow, updates, trace) if nesterov else trace, ScheduledTrace(state.steps + 1, trace)

    return optax.GradientTransformation(init, update)


def scheduled_adam(beta1: Schedule, beta2: float, epsilon: float) -> optax.GradientTransformation:
    """Returns Adam whose β₁ is that of the step, in the moment and in its bias correction 1 − β₁ᵗ, as torch's Adam."""

    def init(params: optax.Params) -> optax.ScaleByAdamState:
        def zeros() -> optax.Updates:
            return jax.tree.map(jnp.zeros_like, params)

        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), zeros(), zeros())

    def update(
        updates: optax.Updates, state: optax.ScaleByAdamState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.ScaleByAdamState]:
        del params
        b1, count = beta1(state.count), state.count + 1
        mu = jax.tree.map(lambda g, m: m + (1 - b1).astype(g.dtype) * (g - m), updates, state.mu)
        nu = jax.tree.map(lambda g, v: beta2 * v + (1 - beta2) * g * g, updates, state.nu)
        c1, c2 = 1 - b1**count, 1 - beta2**count

        def ratio(m: Array, v: Array) -> Array:
            return m / c1.astype(m.dtype) / (jnp.sqrt(v / c2.astype(v.dtype)) + epsilon)

        return jax.tree.map(ratio, mu, nu), optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, promoting(update))
