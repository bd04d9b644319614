"""A learning-rate range test: the config's own training step, at a rate that grows until the loss diverges."""

import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxnets.cache import use_compilation_cache
from jaxnets.config import Config, resolve
from jaxnets.config_files import read_config
from jaxnets.data.absolute import with_absolute_paths
from jaxnets.errors import UserError
from jaxnets.recipe.schedule.piecewise import Piecewise
from jaxnets.recipe.schedule.table import ScheduleConfig
from jaxnets.run.directory import RunDirectory
from jaxnets.sweep.rules import RULES, diverges, growing, smoothed
from jaxnets.train.auto_batch import with_batch_size
from jaxnets.train.feed import Draws, make_feed
from jaxnets.train.hosts import Hosts
from jaxnets.train.loop import Setup, fresh_state, set_up
from jaxnets.train.opened import Opened
from jaxnets.train.phases import Phases

_log = logging.getLogger(__name__)

LOW, HIGH, STEPS = 1e-6, 10.0, 100  # by default
LEAST_STEPS = 40  # fewer show no curve
_AT_ONCE = 8  # steps between two looks at the loss


@dataclass(frozen=True, kw_only=True)
class RangeTest:
    """What a range test found; rates are those at the schedule's peak, for the whole batch."""

    rates: tuple[float, ...]  # of each step that was done, growing
    losses: tuple[float, ...]  # of each of these steps' batches; the last may be no number
    suggestions: dict[str, float | None]  # by rule; None where it finds none
    diverged: bool  # it ended because the loss did
    batch_size: int
    per_256: bool  # the config gives its rate for 256 examples

    @property
    def suggestion(self) -> float | None:
        """The rate to take, by the first rule that finds one."""
        return next((rate for rate in self.suggestions.values() if rate is not None), None)

    @property
    def option(self) -> str | None:
        """The suggestion as it is put on a command line."""
        rate = self.suggestion
        if rate is None:
            return None
        if self.per_256:
            return f"--config.optimizer.learning_rate_per_256={rate * 256 / self.batch_size:.2g}"
        return f"--config.optimizer.learning_rate={rate:.2g}"

    def lines(self) -> list[str]:
        """Returns what was found, for a person."""
        end = f"the loss diverged at {self.rates[-1]:.2g}" if self.diverged else f"up to {self.rates[-1]:.2g}"
        said = ", ".join(f"{name} {rate:.2g}" for name, rate in self.suggestions.items() if rate is not None)
        lines = [f"{len(self.rates)} steps of {self.batch_size:,} examples, {end}; {said or 'no rule finds a rate'}"]
        if self.option is None:
            lines.append(
                "the loss falls nowhere: give another range (--from, --to), or more steps, and look at the drawing"
            )
        else:
            lines.append(f"suggested, where the loss falls fastest: {self.option}")
            if not self.diverged:
                lines.append("the loss did not diverge: with a larger --to the suggestion may be another")
        return lines

    def to_json(self) -> dict[str, Any]:
        average = smoothed(self.losses).tolist()
        return {**asdict(self), "smoothed": average, "suggestion": self.suggestion, "option": self.option}


def find_rate(
    config: str | ConfigDict | Mapping[str, Any] | Config,
    *,
    low: float = LOW,
    high: float = HIGH,
    steps: int = STEPS,
    mesh: Mesh | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> RangeTest:
    """Trains for some steps at a rate that grows from `low` to `high` and returns what the loss did (Smith 2017).

        found = jaxnets.find_rate("digits")
        found.suggestion, found.suggestions

    The step is the config's own, with its optimizer, augmentation and frozen layers, from its pretrained weights where
    it has some; only the schedule is another. Nothing is written.

    Args:
        config: as for `jaxnets.train`.
        low: the rate of the first step, for the whole batch, where the schedule would be at its peak.
        high: the rate of the last step; it ends before where the loss diverges.
        steps: how many, at least 40.
        mesh: the devices, by default all.
        say: is told what is found out on the way.

    Raises:
        UserError: for whatever the user can correct.
    """
    if isinstance(config, str):
        config = read_config(config)
    resolved = with_absolute_paths(config if isinstance(config, Config) else resolve(config))
    _check(resolved, low, high, steps)
    use_compilation_cache()
    hosts, opened = Hosts(), Opened()
    if hosts.several:
        raise UserError("a range test runs in one process, and here are several: start it on one host")
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder) / "none")
        resolved = with_batch_size(resolved, run, hosts, mesh, opened, say)
        setup = set_up(_growing(resolved, low, high, steps), run, hosts, mesh, opened=opened)
    setup = _first_phase(resolved, setup)
    losses = _losses(resolved, setup, steps, hosts)
    rates = growing(low, high, steps)[: len(losses)].tolist()
    diverged = diverges(losses)
    # What came after the loss was lost says nothing.
    shown = losses[:-1] if not np.isfinite(losses[-1]) else losses
    suggestions = {name: rule(rates[: len(shown)], shown) for name, rule in RULES.items()}
    return RangeTest(
        rates=tuple(rates),
        losses=tuple(losses),
        suggestions=suggestions,
        diverged=diverged,
        batch_size=resolved.batch_size,
        per_256=resolved.optimizer.learning_rate_per_256 is not None,
    )


def _check(config: Config, low: float, high: float, steps: int) -> None:
    if not 0 < low < high < float("inf"):
        raise UserError(f"a range test grows the rate from a number above 0 to a larger one, found {low:g} to {high:g}")
    if steps < LEAST_STEPS:
        raise UserError(f"a range test needs {LEAST_STEPS} steps or more to show a curve, found {steps}")
    if config.finetune.method is not None:
        raise UserError(
            f"config.finetune.method {config.finetune.method} solves the head without a learning rate, and decides "
            f"what follows it: set it to None to find the rate of an ordinary training"
        )


def _growing(config: Config, low: float, high: float, steps: int) -> Config:
    """Returns the config with a schedule that is at the growing rates, and nothing else changed of its step."""
    shares = tuple((growing(low, high, steps) / high).tolist())
    points = Piecewise(steps=tuple(map(float, range(steps))), shares=shares)
    return replace(
        config,
        steps=steps,
        optimizer=replace(config.optimizer, learning_rate=high, learning_rate_per_256=None),
        schedule=ScheduleConfig(name="piecewise", piecewise=points),
    )


def _first_phase(config: Config, setup: Setup) -> Setup:
    """Returns the setup with what trains at first, at the size that is trained at first, for all of its steps."""
    teacher = setup.teacher.variables if setup.teacher else None
    first = Phases(setup.built.phases[:1], setup.mesh, split=config.mesh.shard_parameters, teacher=teacher)
    return replace(setup, phases=first)


def _losses(config: Config, setup: Setup, steps: int, hosts: Hosts) -> list[float]:
    """Returns the loss of each step until it diverges."""
    data, phase = setup.data, setup.phases.at(0)
    draws = Draws(order=data.order, batch_size=config.batch_size, stop_step=steps, boxes=setup.built.boxes)
    feed = make_feed(config.data, data.training, draws, phase.step, data.threads, setup.mesh, hosts)
    feed.compile(setup.phases.like(phase))
    state = fresh_state(setup, setup.start, config.seed, hosts)
    losses: list[float] = []
    at_once = min(_AT_ONCE, feed.max_steps)
    while len(losses) < steps:
        count = min(at_once, steps - len(losses))
        state, done = feed.advance(state, len(losses), count)
        loss, images = (
            np.concatenate([np.atleast_1d(np.asarray(sums[name])) for sums in jax.device_get(done)])[:count]
            for name in ("loss", "count")
        )
        for value in (loss / images).tolist():
            losses.append(value)
            if diverges(losses):
                return losses
    return losses
