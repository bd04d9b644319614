"""The optimizer, from its spec."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import optax

from jaxnets.recipe.freeze import Freezing, join
from jaxnets.recipe.groups import kernels, rates_like
from jaxnets.recipe.promotion import promoting
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
    head_rate: Positive = 1.0  # what the head's rate is multiplied by: 10 for a new head on weights that are trained


def make_optimizer(
    spec: OptimizerConfig,
    schedule: Schedule,
    rates: Mapping[str, float] | None = None,
    freezing: Freezing | None = None,
) -> optax.GradientTransformation:
    """Returns SGD with (Nesterov) momentum or AdamW; weight decay reaches the kernels alone.

    For SGD the decay is part of the gradient, as in the papers' recipes; for AdamW it is decoupled (Loshchilov &
    Hutter 2019, algorithm 2). `rates` multiplies each layer's learning rate, and its decoupled decay with it.
    With `freezing`, what thaws later begins there with a state of its own: moments of zero, and Adam's bias correction
    (Kingma & Ba 2015, algorithm 1) counts the steps since.
    """
    clip = optax.identity() if spec.clip_norm is None else optax.clip_by_global_norm(spec.clip_norm)
    if freezing is None or len(freezing.starts) == 1:
        return optax.chain(clip, *_rules(spec, schedule, rates))
    return optax.chain(clip, _by_cohort(lambda at: optax.chain(*_rules(spec, at, rates)), schedule, freezing))


def _rules(
    spec: OptimizerConfig, schedule: Schedule, rates: Mapping[str, float] | None
) -> list[optax.GradientTransformation]:
    by_layer = [] if rates is None else [_scaled_by_layer(rates)]
    if spec.name == "adamw":
        adamw = optax.adamw(
            schedule, b1=spec.beta1, b2=spec.beta2, eps=spec.epsilon, weight_decay=spec.weight_decay, mask=kernels
        )
        return [adamw._replace(update=promoting(adamw.update)), *by_layer]
    sgd = optax.sgd(schedule, momentum=spec.momentum or None, nesterov=spec.nesterov and spec.momentum > 0)
    return [optax.add_decayed_weights(spec.weight_decay, mask=kernels), sgd, *by_layer]


def _by_cohort(
    make: Callable[[Schedule], optax.GradientTransformation], schedule: Schedule, freezing: Freezing
) -> optax.GradientTransformation:
    """Returns an optimizer for each set of parameters that begin to train together; its state is a dict of theirs.

    Each counts its own steps, and all follow one schedule.
    """

    def since(start: int) -> Schedule:
        return lambda count: schedule(count + start)

    own = {start: make(since(start)) for start in freezing.starts}

    def init(params: optax.Params) -> dict[str, Any]:
        return {_name(start): own[start].init(some) for start, some in freezing.cohorts(params).items()}

    def update(
        updates: optax.Updates, state: dict[str, Any], params: optax.Params | None = None
    ) -> tuple[optax.Updates, dict[str, Any]]:
        theirs = {} if params is None else freezing.cohorts(params)
        whole: Any = {}
        after = {}
        for start, some in freezing.cohorts(updates).items():
            changed, after[_name(start)] = own[start].update(some, state[_name(start)], theirs.get(start))
            whole = join(whole, changed)
        return whole, after

    return optax.GradientTransformation(init, update)


def _name(start: int) -> str:
    return f"from_{start}"


def _scaled_by_layer(rates: Mapping[str, float]) -> optax.GradientTransformation:
    def scaled(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        return jax.tree.map(lambda update, rate: update * rate, updates, rates_like(updates, rates))

    return optax.stateless(scaled)
