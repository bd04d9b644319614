"""Which of a run's evaluations is the best, and when it ends for want of a better one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jaxnets.config import Config
from jaxnets.data.dataset import Dataset
from jaxnets.errors import UserError
from jaxnets.metrics import table
from jaxnets.run.checkpoints import Progress

_OF_ONE, _OF_SEVERAL = ("accuracy", "balanced_accuracy"), ("mean_average_precision",)


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Compares evaluations of the validation split: in one figure, and between equals in the loss."""

    figure: str | None  # as config.best
    patience: int | None  # evaluations without a better one, after which the run ends
    from_step: int = 0  # before which none counts: what is pruned on the way is not yet what it will be

    def is_better(self, evaluation: Mapping[str, Any], best: Mapping[str, Any] | None) -> bool:
        """Tells whether an evaluation beats the best so far."""
        return best is None or table.score(evaluation, self.figure) > table.score(best, self.figure)

    def judged(self, progress: Progress, step: int, evaluation: Mapping[str, Any]) -> Progress:
        """Returns the progress with an evaluation taken into account."""
        if step < self.from_step:
            return progress
        if not self.is_better(evaluation, progress.best):
            return replace(progress, without_better=progress.without_better + 1)
        figures = {name: evaluation[name] for name in self.compared(evaluation)}
        return replace(progress, best={"step": step, **figures}, without_better=0)

    def compared(self, evaluation: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the names of the figures that tell how good an evaluation is, the chief one first."""
        return tuple(dict.fromkeys((table.chief(evaluation, self.figure), "accuracy", "loss")))

    def said_of_average(self, evaluation: Mapping[str, Any]) -> str:
        """Returns, of a run whose averaged weights are clearly worse than the raw ones, what to do; else nothing."""
        figure = table.chief(evaluation, self.figure)
        if figure == "loss":  # which has no scale
            figure = "accuracy"
        averaged, raw = (evaluation.get(name) for name in (figure, f"raw_{figure}"))
        # Of so few images a difference may be chance.
        if averaged is None or raw is None or raw - averaged < max(0.01, 1 / math.sqrt(evaluation["count"])):
            return ""
        return (
            f"the averaged weights, which are the ones in use, have {evaluation['split']} {_words(figure)} "
            f"{_shown(figure, averaged)} at the end, and the raw ones {_shown(figure, raw)}: this run is short for its "
            f"config.ema.decay. Give a smaller one, or none; --weights raw takes the raw ones as they are"
        )

    def gives_up(self, progress: Progress) -> bool:
        return self.patience is not None and progress.without_better >= self.patience

    def said(self, progress: Progress) -> str:
        """Returns which step is the best so far, and why the run is over where it gave up; nothing if none was."""
        best = progress.best
        if best is None:
            return ""
        figure = table.chief(best, self.figure)
        value = best.get(figure)
        shown = _shown(figure, value)
        text = f"the best is step {best['step']}, validation {_words(figure)} {shown}"
        if self.gives_up(progress):
            text += f"; it was not bettered in {progress.without_better} evaluations (config.patience {self.patience})"
        return text


def make_judge(config: Config, data: Dataset) -> Judge:
    """Returns what compares the evaluations of a run.

    Raises:
        UserError: if there is no validation split, or the figure is not one of its labels.
    """
    asked = [f"config.{key} {value}" for key in ("best", "patience") if (value := getattr(config, key)) is not None]
    if asked and "validation" not in data.splits:
        raise UserError(
            f"{' and '.join(asked)} {'need' if len(asked) > 1 else 'needs'} a validation split, since a run that was "
            f"chosen or ended by the test split would look too good, and {config.data.source} has none: hold some of "
            f"the training images out with --config.data.validation=0.1 (or config.data.folds)"
        )
    if config.best in (_OF_ONE if data.several_labels else _OF_SEVERAL):
        images = "may have several labels" if data.several_labels else "have one label each"
        valid = ("mean_average_precision",) if data.several_labels else _OF_ONE
        raise UserError(
            f"config.best {config.best} does not fit {config.data.source}, whose images {images}: give one of "
            f"{', '.join((*valid, 'macro_f1', 'loss'))}"
        )
    return Judge(figure=config.best, patience=config.patience)


def _shown(figure: str, value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}" if figure == "loss" else f"{value:.2%}"


def _words(figure: str) -> str:
    return figure.replace("_", " ").replace("f1", "F1")
