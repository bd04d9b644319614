"""The study of a sweep: Optuna's, in a file that several processes share, and that outlives each of them."""

import fcntl
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from jaxnets.config import Config
from jaxnets.errors import UserError
from jaxnets.schema import flatten, written
from jaxnets.sweep.space import Choices, Floats, Ints, Range, Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

_NAME = "jaxnets"
_REDUCTION = 3  # of the trials that come to a rung, one in so many goes on
_WAIT = 60  # seconds that a process waits for another that is writing
# What trials may be run with otherwise than before: it is no part of what is measured.
_FREE = ("drawings", "hang_minutes", "max_hours", "memory_limit_mib", "profile_steps", "data.threads", "distributed.")


class SharedStudy:
    """Trials of a space, asked for one by one by any number of processes.

    A trial that is running is known by the lock that its process holds. Where that has gone the trial is marked as
    failed, and the same values are tried again.
    """

    def __init__(self, folder: Path, config: Config, space: Space, figure: str, *, pruning: bool) -> None:
        """Opens the study in `folder`, or begins it there.

        Raises:
            UserError: if Optuna is missing, or if the study is of another config or space.
        """
        optuna = import_optuna()
        self.folder, self.space, self.figure = folder, space, figure
        self._seed = config.seed
        self.trials_folder.mkdir(parents=True, exist_ok=True)
        maximise = figure != "loss"
        pruner: Any = optuna.pruners.NopPruner()
        if pruning:
            pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=_REDUCTION)
        wanted = {
            "config": {key: written(value) for key, value in flatten(config).items() if not key.startswith(_FREE)},
            "space": {key: str(values) for key, values in space.items()},
            "figure": figure,
        }
        with self.alone():
            try:
                storage = optuna.storages.RDBStorage(
                    f"sqlite:///{folder.absolute() / 'study.db'}", engine_kwargs={"connect_args": {"timeout": _WAIT}}
                )
                self.study: Study = optuna.create_study(
                    storage=storage,
                    study_name=_NAME,
                    direction="maximize" if maximise else "minimize",
                    pruner=pruner,
                    load_if_exists=True,
                )
            except Exception as error:  # of SQLite, of SQLAlchemy, of Optuna
                raise UserError(
                    f"{folder / 'study.db'} cannot be opened as a study ({str(error).splitlines()[0]}): make room and "
                    f"permission for it, or give another --out"
                ) from error
            before = self.study.user_attrs.get("what")
            if before is None:
                self.study.set_user_attr("what", json.dumps(wanted))
                self._begin_with(config)
            else:
                _refuse_another(folder, json.loads(before), wanted)

    @property
    def trials_folder(self) -> Path:
        return self.folder / "trials"

    def path(self, number: int) -> Path:
        """Returns the run directory of a trial."""
        return self.trials_folder / str(number)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """What is done within, no other process does at the same time."""
        with (self.folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def trials(self) -> "list[FrozenTrial]":
        return self.study.get_trials(deepcopy=False)

    def done(self) -> "list[FrozenTrial]":
        """Returns the trials that came to an end: with a figure, pruned, or with values that cannot be trained with."""
        return [trial for trial in self.trials() if state(trial) in ("complete", "pruned", "refused")]

    def best(self) -> "FrozenTrial | None":
        """Returns the trial with the best figure among those that were not pruned."""
        found = [trial for trial in self.trials() if state(trial) == "complete" and trial.value is not None]
        sign = -1 if self.figure == "loss" else 1
        return max(found, key=lambda trial: sign * (trial.value or 0.0), default=None)

    @contextmanager
    def next_trial(self, wanted: int) -> "Iterator[Trial | None]":
        """Yields a trial to be run, as this process's own while the block lasts; None where there are enough."""
        optuna = import_optuna()
        with self.alone():
            self._redo_lost()
            running = sum(state(trial) == "running" for trial in self.trials())
            begun = len(self.done()) + running
            trial: Trial | None = None
            if begun < wanted:
                # Of the seed and how many there are, so that a sweep that was killed goes on as it would have, and no
                # two processes propose the same.
                seed = (self._seed * 1_000_003 + begun) % 2**32
                self.study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
                trial = self.study.ask({key: distribution(values) for key, values in self.space.items()})
                held = _hold(self._claim(trial.number))
                redoes = trial.user_attrs.get("redoes")
                if redoes is not None and self.path(redoes).is_dir():  # it goes on from its checkpoint
                    self.path(redoes).rename(self.path(trial.number))
        try:
            yield trial
        finally:
            if trial is not None and held is not None:
                held.close()

    def _claim(self, number: int) -> Path:
        return self.trials_folder / f"{number}.lock"

    def tell(self, trial: "Trial", ended: str, value: float | None = None, error: str | None = None) -> None:
        """Notes how a trial ended: complete, with its value; pruned; or refused, with the error."""
        from optuna.trial import TrialState

        if error is not None:
            trial.set_user_attr("error", error)
        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "refused": TrialState.FAIL}
        self.study.tell(trial, value if ended == "complete" else None, state=states[ended])
        self._claim(trial.number).unlink(missing_ok=True)

    def _begin_with(self, config: Config) -> None:
        """Has the config's own values tried first, where the space has them."""
        own = flatten(config)
        values = {key: _external(values, own[key]) for key, values in self.space.items()}
        if all(value is not None for value in values.values()):
            self.study.enqueue_trial(values)

    def _redo_lost(self) -> None:
        from optuna.trial import TrialState

        for trial in self.trials():
            if state(trial) != "running":
                continue
            claim = self._claim(trial.number)
            held = _hold(claim)
            if held is None:
                continue  # its process lives
            with held:
                self.study.tell(trial.number, state=TrialState.FAIL)
                self.study.enqueue_trial(trial.params, user_attrs={"redoes": trial.number})
                claim.unlink(missing_ok=True)


def state(trial: "FrozenTrial") -> str:
    """Returns complete, pruned, refused (its values cannot be trained with), lost, running or waiting."""
    name = trial.state.name.lower()
    return ("refused" if "error" in trial.user_attrs else "lost") if name == "fail" else name


def value_of(trial: "FrozenTrial") -> float | None:
    """Returns a trial's figure, of one that was pruned the best until then."""
    if state(trial) == "complete":
        return trial.value
    return trial.intermediate_values[trial.last_step] if trial.last_step is not None else None


def shown(figure: str, value: float | None) -> str:
    """Returns a figure as a person reads it."""
    return "no figure" if value is None else f"{value:.4f}" if figure == "loss" else f"{value:.2%}"


def values_of(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of the config that a trial's parameters mean."""
    found = {}
    for key, value in params.items():
        values = space[key]
        found[key] = values.by_text[value] if isinstance(values, Choices) else value
    return found


def distribution(values: Range) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, Floats):
        return FloatDistribution(values.low, values.high, log=values.log)
    if isinstance(values, Ints):
        return IntDistribution(values.low, values.high, log=values.log, step=values.step)
    return CategoricalDistribution(tuple(values.by_text))


def import_optuna() -> Any:
    """Returns Optuna, as quiet as it can be.

    Raises:
        UserError: if it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError("a sweep needs Optuna, which is not installed: pip install 'jaxnets[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def _external(values: Range, value: Any) -> Any:
    """Returns a value as the study has it; None where the range does not have it."""
    if isinstance(values, Choices):
        return written(value) if written(value) in values.by_text else None
    if not isinstance(value, int | float) or not values.low <= value <= values.high:
        return None
    if isinstance(values, Ints) and (value != int(value) or (int(value) - values.low) % values.step):
        return None
    return value


def _hold(path: Path) -> TextIO | None:
    """Returns a file that is locked until it is closed; None where another process has locked it."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _refuse_another(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    lines = []
    for kind, name in (("space", "space: "), ("config", "config.")):
        for key in dict.fromkeys((*before[kind], *now[kind])):
            there, here = (side[kind].get(key, "nothing") for side in (before, now))
            if there != here:
                lines.append(f"  {name}{key}: {there} there, {here} now")
    if before["figure"] != now["figure"] and not lines:
        lines.append(f"  figure: {before['figure']} there, {now['figure']} now")
    if lines:
        raise UserError(
            f"{folder} holds a study of another {'config or space' if len(lines) > 1 else 'setting'}:\n"
            + "\n".join(lines)
            + "\nGive another --out, or the same values to go on with that study."
        )
