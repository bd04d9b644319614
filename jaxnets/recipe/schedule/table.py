"""The schedules that a config can name, as functions of the step."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from jaxnets.recipe.promotion import promoting
from jaxnets.recipe.schedule import shape
from jaxnets.recipe.schedule.exponential import Exponential
from jaxnets.recipe.schedule.one_cycle import OneCycle
from jaxnets.recipe.schedule.piecewise import Piecewise
from jaxnets.schema import Natural, NonNegative, ZeroToOne

_log = logging.getLogger(__name__)

Schedule = Callable[[Any], Any]  # step -> learning rate, or momentum

# What a schedule counts from where the config does not say: the papers' own habits.
_FROM_THE_START = ("exponential",)


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    name: Literal["cosine", "linear", "step", "constant", "exponential", "one_cycle", "piecewise"] = "cosine"
    warmup_epochs: NonNegative = 0.0  # epochs of linear rise to the peak; or warmup_steps
    warmup_steps: Natural | None = None  # the same in steps; None: by warmup_epochs
    warmup_start: ZeroToOne = 0.0  # share of the peak that the rise begins with
    # From where cosine, linear and exponential count. warmup: from its end, where they begin at the peak; start: from
    # the first step, so that the warm-up takes the place of their beginning (timm without --warmup-prefix).
    counts_from: Literal["start", "warmup"] | None = None  # None: exponential from the start, the others from the end
    per_epoch: bool = False  # the rate changes only where an epoch begins, as with timm's and torchvision's schedulers
    final: ZeroToOne = 0.0  # cosine, linear: share of the peak that is left at the end
    milestones: tuple[float, ...] = (0.5, 0.75)  # step: shares of the whole run at which the rate drops
    milestone_epochs: tuple[float, ...] | None = None  # step: the same in epochs; None: by milestones
    factor: ZeroToOne = 0.1  # step: what the rate is multiplied by at each milestone
    exponential: Exponential = field(default_factory=Exponential)
    one_cycle: OneCycle = field(default_factory=OneCycle)
    piecewise: Piecewise = field(default_factory=Piecewise)

    @property
    def from_start(self) -> bool:
        """Whether the schedule counts from the first step, and not from the end of the warm-up."""
        return self.counts_from == "start" if self.counts_from else self.name in _FROM_THE_START

    def stretched(self, factor: float) -> "ScheduleConfig":
        """Returns the schedule of a run of `factor` times as many epochs, for all that is told in epochs."""
        if factor == 1:
            return self

        def times(epochs: tuple[float, ...] | None) -> tuple[float, ...] | None:
            return None if epochs is None else tuple(factor * epoch for epoch in epochs)

        return replace(
            self,
            warmup_epochs=factor * self.warmup_epochs,
            milestone_epochs=times(self.milestone_epochs),
            exponential=replace(self.exponential, every_epochs=factor * self.exponential.every_epochs),
            piecewise=replace(self.piecewise, epochs=times(self.piecewise.epochs)),
        )


def total_steps(steps: int | None, epochs: float, steps_per_epoch: float) -> int:
    """Returns `steps` where they are set, or as many as see every training example `epochs` times."""
    return steps or math.ceil(epochs * steps_per_epoch)


def make_schedule(spec: ScheduleConfig, peak: float, steps: int, steps_per_epoch: float) -> Schedule:
    """Returns the learning rate at each step: a linear rise, and the schedule from its peak on."""
    unit, position = _clock(spec, steps, steps_per_epoch)
    warmup, length = _warmup(spec, unit, steps_per_epoch), steps / unit
    if warmup * unit >= steps:
        _log.warning(
            "the warm-up takes %d steps and the run ends at %d: the rate never reaches its peak", warmup * unit, steps
        )
    begin = 0.0 if spec.from_start else warmup
    rest = max(length - begin, 1)
    course: shape.Shape
    if spec.name == "cosine":
        course = shape.after(shape.cosine(rest, spec.final), begin)
    elif spec.name == "linear":
        course = shape.after(shape.linear(rest, spec.final), begin)
    elif spec.name == "step":
        course = shape.staircase(_drops(spec, unit, steps, steps_per_epoch), spec.factor)
    elif spec.name == "exponential":
        own = spec.exponential
        every = (own.every_steps or own.every_epochs * steps_per_epoch) / unit
        course = shape.after(own.shape(every, length), begin)
    elif spec.name == "one_cycle":
        course = spec.one_cycle.shape(length)
    elif spec.name == "piecewise":
        scale = 1 / unit if spec.piecewise.epochs is None else steps_per_epoch / unit
        places = tuple(scale * place for place in spec.piecewise.points)
        _check_points(spec.piecewise, places, length, unit)
        course = spec.piecewise.shape(places)
    else:
        course = shape.constant()
    course = shape.warmed_up(course, warmup, spec.warmup_start)
    return promoting(lambda step: peak * course(position(step)))


def make_momentum(spec: ScheduleConfig, steps: int, steps_per_epoch: float) -> Schedule | None:
    """Returns the momentum at each step; None where the schedule leaves it as the optimizer has it."""
    if spec.name != "one_cycle":
        return None
    unit, position = _clock(spec, steps, steps_per_epoch)
    momentum = spec.one_cycle.momentum_at(steps / unit)
    return None if momentum is None else promoting(lambda step: momentum(position(step)))


def _clock(spec: ScheduleConfig, steps: int, steps_per_epoch: float) -> tuple[float, Callable[[Any], Any]]:
    """Returns how many steps a position stands for, and the position of each step.

    Whole epochs are counted by the first steps that have an example of each, and not by a division in float32.
    """
    if not spec.per_epoch or steps_per_epoch <= 1:
        return 1.0, jnp.asarray
    first = [shape.first_at(epoch * steps_per_epoch) for epoch in range(1, int(steps / steps_per_epoch) + 2)]
    starts = np.asarray(first, np.int32)
    return steps_per_epoch, lambda step: jnp.searchsorted(jnp.asarray(starts), step, side="right")


def warmup_steps(spec: ScheduleConfig, steps_per_epoch: float) -> int:
    """Returns how many steps the rate rises."""
    return round(_exact_warmup(spec, steps_per_epoch))


def _warmup(spec: ScheduleConfig, unit: float, steps_per_epoch: float) -> float:
    """Returns the positions of the warm-up."""
    return _exact_warmup(spec, steps_per_epoch) / unit if unit > 1 else warmup_steps(spec, steps_per_epoch)


def _exact_warmup(spec: ScheduleConfig, steps_per_epoch: float) -> float:
    return spec.warmup_epochs * steps_per_epoch if spec.warmup_steps is None else spec.warmup_steps


def _drops(spec: ScheduleConfig, unit: float, steps: int, steps_per_epoch: float) -> list[int]:
    """Returns the positions of the milestones."""
    if spec.milestone_epochs is None:
        at = [round(share * steps) for share in spec.milestones]
        return at if unit == 1 else [shape.first_at(step / unit) for step in at]
    late = [epoch for epoch in spec.milestone_epochs if epoch * steps_per_epoch >= steps]
    if late:
        _log.warning(
            "config.schedule.milestone_epochs %s: the run ends after %g epochs, so that the rate does not drop there",
            ", ".join(f"{epoch:g}" for epoch in late),
            steps / steps_per_epoch,
        )
    return [shape.first_at(epoch * steps_per_epoch / unit) for epoch in spec.milestone_epochs]


def _check_points(spec: Piecewise, places: tuple[float, ...], length: float, unit: float) -> None:
    """Warns of points that a run of so many positions does not reach, and of an end at which nothing trains."""
    key = "steps" if spec.epochs is None else "epochs"
    if late := [point for point, place in zip(spec.points, places, strict=True) if place > length + 1 / unit]:
        _log.warning(
            "config.schedule.piecewise.%s: the run ends after step %d, before the points at %s",
            key,
            round(length * unit),
            ", ".join(f"{point:g}" for point in late),
        )
    if spec.shares and not spec.shares[-1] and places[-1] < length - 1 / unit:
        _log.warning(
            "config.schedule.piecewise.%s: the rate is 0 from step %d on, so that the last %d of %d steps change "
            "nothing: let the last point lie at the end",
            key,
            places[-1] * unit,
            (length - places[-1]) * unit,
            length * unit,
        )
