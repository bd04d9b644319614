"""What a schedule's keys may not say together, and which of them say nothing."""

import math
from collections.abc import Sequence

from jaxnets.errors import UserError
from jaxnets.recipe.schedule.table import ScheduleConfig
from jaxnets.schema import flatten, written

_DEFAULT = ScheduleConfig()
_OWN_RISE = ("one_cycle", "piecewise")  # those that say themselves how the rate rises


def check_schedule(spec: ScheduleConfig, epochs: float, steps: int | None) -> None:
    """Refuses keys that contradict each other, or the length of the run: `steps` where they are set, else `epochs`.

    Raises:
        UserError: that names both.
    """
    warmup = spec.warmup_epochs if spec.warmup_steps is None else spec.warmup_steps
    if spec.warmup_steps is not None and spec.warmup_epochs:
        _refuse_both("warmup_steps", spec.warmup_steps, "warmup_epochs", spec.warmup_epochs, "how long the rate rises")
    if steps is None and spec.warmup_epochs >= epochs:
        raise UserError(
            f"config.schedule.warmup_epochs {spec.warmup_epochs:g} leaves nothing of config.epochs "
            f"{epochs:g}: warm up for less, or train for longer"
        )
    if warmup and spec.name in _OWN_RISE:
        key = "warmup_epochs" if spec.warmup_steps is None else "warmup_steps"
        raise UserError(
            f"config.schedule.{key} {warmup:g} and config.schedule.name {spec.name} both say how the rate rises: leave "
            f"the warm-up out (0), and see config.schedule.{spec.name}"
        )
    if spec.per_epoch and spec.warmup_start == 0 and warmup:
        raise UserError(
            "config.schedule.per_epoch with config.schedule.warmup_start 0 would train the whole first epoch at a rate "
            "of 0: give the share of the peak that the warm-up begins with (0.01 is torchvision's)"
        )
    if spec.name == "step":
        _check_milestones(spec)
    if spec.name == "exponential":
        own, default = spec.exponential, _DEFAULT.exponential
        if own.every_steps is not None and own.every_epochs != default.every_epochs:
            _refuse_both(
                "exponential.every_steps",
                own.every_steps,
                "exponential.every_epochs",
                own.every_epochs,
                "how often the rate falls",
            )
    if spec.name == "one_cycle":
        momentum = spec.one_cycle.momentum
        if momentum is not None and not (len(momentum) == 2 and all(0 <= m < 1 for m in momentum)):
            raise UserError(
                f"config.schedule.one_cycle.momentum must be two numbers of at least 0 and below 1, the one of the "
                f"ends first (0.95,0.85), or None, found {written(momentum)}"
            )
    if spec.name == "piecewise":
        _check_points(spec)


def _check_milestones(spec: ScheduleConfig) -> None:
    if spec.milestone_epochs is not None:
        if spec.milestones != _DEFAULT.milestones:
            _refuse_both(
                "milestone_epochs", spec.milestone_epochs, "milestones", spec.milestones, "when the rate drops"
            )
        if not _rising(spec.milestone_epochs) or not all(0 < epoch < math.inf for epoch in spec.milestone_epochs):
            raise UserError(
                f"config.schedule.milestone_epochs must be rising epochs above 0 (30,60,80), found "
                f"{written(spec.milestone_epochs)}"
            )
    elif not _rising(spec.milestones) or not all(0 < share < 1 for share in spec.milestones):
        raise UserError(
            f"config.schedule.milestones must be rising shares of the run between 0 and 1, found {spec.milestones}"
            + ("; for epochs there is config.schedule.milestone_epochs" if max(spec.milestones, default=0) >= 1 else "")
        )


def _check_points(spec: ScheduleConfig) -> None:
    own = spec.piecewise
    if own.epochs is not None and own.steps is not None:
        _refuse_both("piecewise.epochs", own.epochs, "piecewise.steps", own.steps, "where the points lie")
    if not own.points or not own.shares:
        raise UserError(
            "config.schedule.name piecewise needs config.schedule.piecewise.epochs (or steps) and shares, for instance "
            "0,2,16 and 0,1,0: a rise to the peak at epoch 2 and a fall to the end of 16"
        )
    key = "steps" if own.epochs is None else "epochs"
    if len(own.points) != len(own.shares):
        raise UserError(
            f"config.schedule.piecewise.{key} and shares need as many numbers each, found {len(own.points)} "
            f"({written(own.points)}) and {len(own.shares)} ({written(own.shares)})"
        )
    if not _rising(own.points) or not all(0 <= point < math.inf for point in own.points):
        raise UserError(
            f"config.schedule.piecewise.{key} must rise from 0 or more, found {written(own.points)}: for a drop at "
            f"once put two points close together"
        )
    if not all(0 <= share <= 1 for share in own.shares):
        raise UserError(
            f"config.schedule.piecewise.shares are shares of config.optimizer.learning_rate, 0 to 1, found "
            f"{written(own.shares)}"
        )


def effects(spec: ScheduleConfig, momentum_of: Sequence[str], optimizer: str) -> list[tuple[str, bool, str]]:
    """Returns which keys have an effect, as (what they begin with, whether they have one, why not).

    `momentum_of` are the optimizers whose momentum can be scheduled.
    """
    name, why = spec.name, f"schedule.name is {spec.name}"
    counting, warmup = ("cosine", "linear", "exponential"), spec.warmup_steps or spec.warmup_epochs
    one_cycle = "schedule.one_cycle.momentum"
    return [
        ("schedule.final", name in ("cosine", "linear"), why),
        ("schedule.milestone", name == "step", why),
        ("schedule.factor", name == "step", why),
        ("schedule.counts_from", name in counting, why),
        ("schedule.counts_from", name not in counting or bool(warmup), "there is no warm-up"),
        ("schedule.warmup_start", bool(warmup), "there is no warm-up"),
        ("schedule.per_epoch", name != "constant" or bool(warmup), why),
        *((f"schedule.{group}.", name == group, why) for group in ("exponential", *_OWN_RISE)),
        (one_cycle, name != "one_cycle" or optimizer in momentum_of, f"optimizer.name is {optimizer}"),
    ]


def _refuse_both(key: str, value: object, other: str, other_value: object, what: str) -> None:
    defaults = flatten(_DEFAULT)
    left_out = " or ".join(f"{name}={written(defaults[name])}" for name in (key, other))
    raise UserError(
        f"config.schedule.{key} {written(value)} and config.schedule.{other} {written(other_value)} both say {what}: "
        f"leave one of them out ({left_out})"
    )


def _rising(numbers: Sequence[float]) -> bool:
    return list(numbers) == sorted(set(numbers))
