"""The optimizer and its schedule, from the config."""

import logging
import math
from collections.abc import Callable
from typing import Any

import jax
import optax

from jaxnets.config import Config, OptimizerConfig

_log = logging.getLogger(__name__)

Schedule = Callable[[Any], Any]  # step -> learning rate


def total_steps(config: Config, train_examples: int) -> int:
    """Returns `config.steps`, or as many as see every training example `config.epochs` times."""
    return config.steps or math.ceil(config.epochs * train_examples / config.batch_size)


def make_schedule(config: Config, steps: int, train_examples: int) -> Schedule:
    """Returns the learning rate at each step: a linear rise from 0, then the schedule over the steps that remain."""
    spec, peak = config.schedule, config.optimizer.learning_rate
    warmup = round(spec.warmup_epochs * train_examples / config.batch_size)
    if warmup >= steps:
        _log.warning(
            "the warm-up takes %d steps and the run ends at %d: the rate never reaches its peak", warmup, steps
        )
    rest = max(steps - warmup, 1)
    after: Schedule
    if spec.name == "cosine":
        after = optax.cosine_decay_schedule(peak, rest, alpha=spec.final)
    elif spec.name == "linear":
        after = optax.linear_schedule(peak, peak * spec.final, rest)
    elif spec.name == "step":
        drops = {round(share * steps) - warmup: spec.factor for share in spec.milestones}
        after = optax.piecewise_constant_schedule(peak, drops)
    else:
        after = optax.constant_schedule(peak)
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def make_optimizer(spec: OptimizerConfig, schedule: Schedule) -> optax.GradientTransformation:
    """Returns SGD with (Nesterov) momentum or AdamW; weight decay reaches the kernels alone.

    For SGD the decay is part of the gradient, as in the papers' recipes; for AdamW it is decoupled (Loshchilov &
    Hutter 2019, algorithm 2).
    """
    clip = optax.identity() if spec.clip_norm is None else optax.clip_by_global_norm(spec.clip_norm)
    if spec.name == "adamw":
        return optax.chain(
            clip,
            optax.adamw(
                schedule, b1=spec.beta1, b2=spec.beta2, eps=spec.epsilon, weight_decay=spec.weight_decay, mask=kernels
            ),
        )
    return optax.chain(
        clip,
        optax.add_decayed_weights(spec.weight_decay, mask=kernels),
        optax.sgd(schedule, momentum=spec.momentum or None, nesterov=spec.nesterov and spec.momentum > 0),
    )


def kernels(params: Any) -> Any:
    """Returns True for each kernel and False for every bias, scale and the like, in the shape of `params`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
