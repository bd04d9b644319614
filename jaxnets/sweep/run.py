"""The sweep: trials one after the other, on a study that other processes may share, and what came of them."""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from jaxnets import terminal
from jaxnets.cache import use_compilation_cache
from jaxnets.config import Config, resolve
from jaxnets.config_files import read_config
from jaxnets.data.absolute import with_absolute_paths
from jaxnets.errors import UserError
from jaxnets.run.directory import RunDirectory
from jaxnets.schema import written
from jaxnets.sweep.best import write_best, write_file
from jaxnets.sweep.page import page
from jaxnets.sweep.space import Range, as_space, check_space, read_space, with_values
from jaxnets.sweep.study import SharedStudy, import_optuna, shown, state, value_of, values_of
from jaxnets.sweep.trial import Ended, figure_of, run_trial
from jaxnets.train.hosts import Hosts
from jaxnets.train.judge import make_judge
from jaxnets.train.opened import Opened
from jaxnets.train.start import open_start

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

TRIALS = 20  # by default
_ERRORS = 3  # trials in a row that cannot be run, after which there is no use in more
_ROWS = 10  # of the table in the terminal


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a sweep came to."""

    trials: int  # that came to an end, in all sessions
    best: int | None  # the number of the best; None: there is none yet
    value: float | None  # its figure
    values: dict[str, Any]  # its values of the space's keys
    config: Path | None  # the config file of the best
    page: Path
    status: int = 0  # for the shell: another than 0 where it was interrupted


def sweep(
    config: str | ConfigDict | Mapping[str, Any] | Config,
    space: str | os.PathLike[str] | Mapping[str, Range],
    out: str | os.PathLike[str],
    *,
    trials: int = TRIALS,
    pruning: bool = True,
    quiet: bool = False,
) -> Swept:
    """Tries values of a config's keys, and writes the best config out.

        from jaxnets.sweep import floats
        jaxnets.sweep("digits", {"optimizer.learning_rate": floats(0.01, 1, log=True)}, "sweeps/rate", trials=20)

    Each trial is an ordinary run in `out`/trials; its figure is that of the validation split by which its best
    checkpoint is chosen (config.best). The config's own values come first where the space has them, then Optuna's
    tree-structured Parzen estimator (Bergstra et al. 2011) proposes; trials are left early by asynchronous successive
    halving (Li et al. 2020). The same call goes on with a sweep that was interrupted, and joins one that is running.

    Args:
        config: as for `jaxnets.train`.
        space: a mapping from keys to ranges, or a file whose `get_space()` returns one.
        out: the directory of the sweep.
        trials: how many there are to be when it is over, those of earlier sessions and of other processes included.
        pruning: whether trials without prospects are left early.
        quiet: shows nothing.

    Raises:
        UserError: for whatever the user can correct; trials that are finished stay.
    """
    if isinstance(config, str):
        config = read_config(config)
    resolved = with_absolute_paths(config if isinstance(config, Config) else resolve(config))
    ranges = as_space(space) if isinstance(space, Mapping) else read_space(space)
    folder = Path(out).expanduser().absolute()
    check(resolved, ranges, folder, trials)
    use_compilation_cache()
    if Hosts().several:
        raise UserError("a sweep's trials run in one process each, and here they would share one run: start it alone")
    opened = Opened()
    figure = _figure(resolved, opened)
    study = SharedStudy(folder, resolved, ranges, figure, pruning=pruning)
    running = _Sweep(resolved, study, opened, trials, quiet=quiet)
    try:
        status = running.run()
    finally:
        running.close()
    return running.result(status)


def check(config: Config, space: Mapping[str, Range], folder: Path, trials: int) -> None:
    """Refuses what can be refused before anything is opened or written.

    Raises:
        UserError: that says what.
    """
    if trials < 1:
        raise UserError(f"a sweep needs a trial or more, found {trials}")
    if config.finetune.method is not None:
        raise UserError(
            f"config.finetune.method {config.finetune.method} decides much of a training by itself, which a sweep "
            f"would decide: set it to None"
        )
    if RunDirectory(folder).is_run():
        raise UserError(f"{folder} is a run directory, which a sweep leaves alone: give another --out")
    import_optuna()
    check_space(space, config)


def _figure(config: Config, opened: Opened) -> str:
    """Returns the figure that trials are compared by.

    Raises:
        UserError: if the data cannot be opened, or has no validation split.
    """
    start = open_start(config)
    data = opened.open(config, None, start.preprocess if start else None)
    if "validation" not in data.splits:
        raise UserError(
            f"a sweep compares its trials on a validation split, since what was chosen by the test split would look "
            f"too good, and {config.data.source} has none: hold some of the training images out with "
            f"--config.data.validation=0.1 (or config.data.folds)"
        )
    make_judge(config, data)
    return figure_of(config, several_labels=data.several_labels)


class _Sweep:
    """A session of a sweep."""

    def __init__(self, config: Config, study: SharedStudy, opened: Opened, wanted: int, *, quiet: bool) -> None:
        self._config, self._study, self._opened, self._wanted = config, study, opened, wanted
        self._console = terminal.console(quiet=quiet)

    def run(self) -> int:
        """Runs trials until there are enough; returns a status for the shell."""
        done = len(self._study.done())
        space = ", ".join(f"{key} {values}" for key, values in self._study.space.items())
        self._say(f"space: {space}")
        if done:
            self._say(f"{self._study.folder}: {done} of {self._wanted} trials are done")
        errors, first = 0, True
        while True:
            with self._study.next_trial(self._wanted) as trial:
                if trial is None:
                    return 0
                began = time.monotonic()
                values = values_of(self._study.space, trial.params)
                ended = self._run(trial, values, warns=first)
                if ended.how == "interrupted":
                    self._say("stopped: the same command goes on with the trial that was running")
                    return 128 + (ended.signal or 0)
                self._study.tell(trial, ended.how, ended.value, ended.error if ended.how == "refused" else None)
            self._after(trial.number, values, ended, time.monotonic() - began)
            first = False
            errors = errors + 1 if ended.how == "refused" else 0
            if errors == _ERRORS:
                raise UserError(f"{errors} trials in a row could not be run: {ended.error}")

    def _run(self, trial: Any, values: Mapping[str, Any], *, warns: bool) -> Ended:
        try:
            config = with_values(self._config, values)
        except UserError as error:  # of two keys that do not go together
            return Ended("refused", error=str(error))
        path = self._study.path(trial.number)
        return run_trial(trial, config, path, self._study.figure, self._opened, warns=warns)

    def _after(self, number: int, values: Mapping[str, Any], ended: Ended, seconds: float) -> None:
        with self._study.alone():
            best = self._write_best()
            self._discard(best)
            done = len(self._study.done())
        figure = shown(self._study.figure, ended.value)
        how = {
            "complete": figure,
            "pruned": f"left after {ended.evaluations} evaluations, {figure}",
            "refused": f"cannot be run: {ended.error}",
        }[ended.how]
        if ended.how == "pruned" and ended.error:
            how = f"diverged after {ended.evaluations} evaluations, {figure}"
        tried = "  ".join(f"{_last(key)} {_brief(value)}" for key, value in values.items())
        mark = ", the best so far" if best is not None and best.number == number else ""
        self._say(f"trial {number} ({done}/{self._wanted})  {tried}: {how}{mark}  ({seconds:.0f} s)")

    def _write_best(self) -> "FrozenTrial | None":
        study = self._study
        best = study.best()
        if best is not None:
            values = values_of(study.space, best.params)
            text = f"trial {best.number}, validation {_words(study.figure)} {shown(study.figure, best.value)}"
            said = f"The best of the sweep in {study.folder}: {text}."
            write_best(study.folder / "best.py", with_values(self._config, values), values, said)
        return best

    def _discard(self, best: "FrozenTrial | None") -> None:
        """Removes the checkpoints of all that is over and is not the best; its log and its config stay."""
        for trial in self._study.trials():
            if state(trial) in ("complete", "pruned", "refused") and (best is None or trial.number != best.number):
                shutil.rmtree(self._study.path(trial.number) / "checkpoints", ignore_errors=True)

    def close(self) -> None:
        """Shows the table and writes the page."""
        study = self._study
        ranked = self._ranked()
        if not ranked:
            return
        with study.alone():
            self._write_best()  # a session that was killed may not have
            write_file(study.folder / "sweep.html", page(self._config, study, ranked))
        head = ("trial", _words(study.figure), *map(_last, study.space), "")
        rows = [
            (
                str(trial.number),
                shown(study.figure, value_of(trial)),
                *(_brief(value) for value in values_of(study.space, trial.params).values()),
                "" if state(trial) == "complete" else state(trial),
            )
            for trial in ranked[:_ROWS]
        ]
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
        for row in (head, *rows):
            self._say("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        self._say(f"all of them: {study.folder / 'sweep.html'}")
        if study.best() is not None:
            self._say(f"the best config: python -m jaxnets.main --config {study.folder / 'best.py'} --workdir DIR")

    def _ranked(self) -> "Sequence[FrozenTrial]":
        """Returns the trials that have ended, the best first, those that were pruned after the others."""
        sign = 1 if self._study.figure == "loss" else -1
        order = ("complete", "pruned", "refused")

        def rank(trial: "FrozenTrial") -> tuple[int, float, int]:
            value = value_of(trial)
            return order.index(state(trial)), sign * value if value is not None else float("inf"), trial.number

        return sorted(self._study.done(), key=rank)

    def result(self, status: int) -> Swept:
        best, folder = self._study.best(), self._study.folder
        return Swept(
            trials=len(self._study.done()),
            best=None if best is None else best.number,
            value=None if best is None else best.value,
            values={} if best is None else values_of(self._study.space, best.params),
            config=None if best is None else folder / "best.py",
            page=folder / "sweep.html",
            status=status,
        )

    def _say(self, text: str) -> None:
        self._console.print(terminal.shown(text), soft_wrap=True)


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _brief(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else written(value)


def _words(figure: str) -> str:
    return figure.replace("_", " ")
