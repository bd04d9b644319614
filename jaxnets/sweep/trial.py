"""One trial: an ordinary run in a directory of its own, that is watched and left where it has no prospects."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxnets import terminal
from jaxnets.config import Config
from jaxnets.errors import Diverged, TryAgain, UserError
from jaxnets.metrics import table
from jaxnets.run.checkpoints import steps
from jaxnets.run.curves import read_rows
from jaxnets.run.directory import RunDirectory
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from jaxnets.train.opened import Opened
from jaxnets.train.stop import Stop

if TYPE_CHECKING:
    from optuna.trial import Trial


@dataclass(frozen=True)
class Ended:
    """How a trial ended."""

    how: str  # complete, pruned, refused, or interrupted
    value: float | None = None  # of the best evaluation
    evaluations: int = 0
    error: str | None = None
    signal: int | None = None


class _Watch(Display):
    """Reports each evaluation of the validation split to the trial, and stops the run where that is to be pruned."""

    def __init__(self, trial: "Trial", figure: str, stop: Stop) -> None:
        super().__init__(quiet=True)
        self._trial, self._figure, self._stop = trial, figure, stop
        self.value: float | None = None
        self.evaluations = 0
        self.pruned = False

    def row(self, step: int, steps: int, epoch: float, values: Mapping[str, Any]) -> None:
        self.take(values)
        if self.evaluations and step < steps and self._trial.should_prune():
            self.pruned = True
            self._stop.heard(None)

    def take(self, values: Mapping[str, Any]) -> None:
        """Notes an evaluation, by the best so far: it is the best checkpoint that would be used."""
        if values.get("eval/split") != "validation":
            return
        found = values.get(f"eval/{self._figure}")
        if found is not None and not math.isnan(found):
            better = min if self._figure == "loss" else max
            self.value = found if self.value is None else better(self.value, found)
        self.evaluations += 1
        if self.value is not None:
            self._trial.report(self.value, self.evaluations)


def run_trial(trial: "Trial", config: Config, folder: Path, figure: str, opened: Opened, *, warns: bool) -> Ended:
    """Trains a trial's config into a folder, or goes on with what is there of it.

    Without `warns` the run's warnings are not shown: they are those of the trial before.

    Raises:
        TryAgain: if something failed that is no fault of the values.
    """
    stop = Stop(config.max_hours)
    watch = _Watch(trial, figure, stop)
    for row in _evaluated(folder):
        watch.take(row)
    try:
        with nullcontext() if warns else terminal.without_warnings():
            outcome = train(replace(config, drawings=False), folder, watch, stop=stop, tests=False, opened=opened)
    except TryAgain:
        raise
    except Diverged as error:
        return Ended("pruned", watch.value, watch.evaluations, str(error))
    except UserError as error:
        return Ended("refused", watch.value, watch.evaluations, str(error))
    if outcome.signal is not None:
        return Ended("interrupted", watch.value, watch.evaluations, signal=outcome.signal)
    if watch.pruned or watch.value is None:
        return Ended("pruned", watch.value, watch.evaluations)
    return Ended("complete", watch.value, watch.evaluations)  # or its time, config.max_hours, is over


def figure_of(config: Config, *, several_labels: bool) -> str:
    """Returns the figure of the validation split that a config's checkpoints are chosen by."""
    return config.best or (table.CHIEF[0] if several_labels else "accuracy")


def _evaluated(folder: Path) -> list[Mapping[str, Any]]:
    """Returns the evaluations of an earlier session, up to the checkpoint that the run will go on from."""
    run = RunDirectory(folder)
    saved = steps(run.checkpoints) if run.checkpoints.is_dir() else []
    rows = read_rows(run.metrics) if saved else []
    return [row for row in rows if "eval/split" in row and row["step"] <= saved[-1]]
