"""The optimizer, from its spec."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import optax

from jaxnets.recipe.groups import kernels, rates_like
from jaxnets.recipe.schedule import Schedule
from jaxnets.schema import AboveZeroToOne, NonNegative, Positive, ZeroToBelowOne


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    name: Literal["sgd", "adamw"] = "sgd"  # sgd adds weight decay to the gradient, adamw keeps it apart
    learning_rate: Positive = 0.1  # at its peak, for the whole batch
    momentum: ZeroToBelowOne = 0.9  # sgd
    nesterov: bool = True  # sgd
    beta1: ZeroToBelowOne = 0.9  # adamw
    beta2: ZeroToBelowOne = 0.999  # adamw
    epsilon: Positive = 1e-8  # adamw
    weight_decay: NonNegative = 5e-4  # of the kernels alone: biases and norms are left out
    clip_norm: Positive | None = None  # largest global norm of the gradient; None: no limit
    layer_decay: AboveZeroToOne = 1.0  # what the rate is multiplied by for each group of layers before the head


def make_optimizer(
    spec: OptimizerConfig, schedule: Schedule, rates: Mapping[str, float] | None = None
) -> optax.GradientTransformation:
    """Returns SGD with (Nesterov) momentum or AdamW; weight decay reaches the kernels alone.

    For SGD the decay is part of the gradient, as in the papers' recipes; for AdamW it is decoupled (Loshchilov &
    Hutter 2019, algorithm 2). `rates` multiplies each layer's learning rate, and its decoupled decay with it.
    """
    clip = optax.identity() if spec.clip_norm is None else optax.clip_by_global_norm(spec.clip_norm)
    by_layer = [] if rates is None else [_scaled_by_layer(rates)]
    if spec.name == "adamw":
        adamw = optax.adamw(
            schedule, b1=spec.beta1, b2=spec.beta2, eps=spec.epsilon, weight_decay=spec.weight_decay, mask=kernels
        )
        return optax.chain(clip, _promoting(adamw), *by_layer)
    sgd = optax.sgd(schedule, momentum=spec.momentum or None, nesterov=spec.nesterov and spec.momentum > 0)
    return optax.chain(clip, optax.add_decayed_weights(spec.weight_decay, mask=kernels), sgd, *by_layer)


def _promoting(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
    """Gives optax's Adam, which raises a float to the number of steps, the promotion it needs where JAX's is strict."""

    def update(updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return transformation.update(updates, state, params)

    return optax.GradientTransformation(transformation.init, update)


def _scaled_by_layer(rates: Mapping[str, float]) -> optax.GradientTransformation:
    def scaled(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        return jax.tree.map(lambda update, rate: update * rate, updates, rates_like(updates, rates))

    return optax.stateless(scaled)
