"""The learning rate as a function of the step."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from jaxnets.schema import NonNegative, ZeroToOne

_log = logging.getLogger(__name__)

Schedule = Callable[[Any], Any]  # step -> learning rate


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    name: Literal["cosine", "linear", "step", "constant"] = "cosine"
    warmup_epochs: NonNegative = 0.0  # epochs of linear rise from 0
    final: ZeroToOne = 0.0  # cosine, linear: share of the peak that is left at the end
    milestones: tuple[float, ...] = (0.5, 0.75)  # step: shares of the whole run at which the rate drops
    factor: ZeroToOne = 0.1  # step: what the rate is multiplied by at each milestone


def total_steps(steps: int | None, epochs: float, steps_per_epoch: float) -> int:
    """Returns `steps` where they are set, or as many as see every training example `epochs` times."""
    return steps or math.ceil(epochs * steps_per_epoch)


def make_schedule(spec: ScheduleConfig, peak: float, steps: int, steps_per_epoch: float) -> Schedule:
    """Returns the learning rate at each step: a linear rise from 0, then the schedule over the steps that remain."""
    import optax

    from jaxnets.recipe.promotion import promoting

    warmup = round(spec.warmup_epochs * steps_per_epoch)
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
    if warmup:
        after = optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])
    return promoting(after)
