"""A table over any number of runs: what each is, and how good, from its report or evaluated anew."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxnets.errors import UserError
from jaxnets.run.checkpoints import choose
from jaxnets.run.directory import RunDirectory, open_run, read_json
from jaxnets.run.storage import kind_of

# Columns of figures: the key in metrics.json, what it is called, and whether less is better.
FIGURES: tuple[tuple[str, str, bool], ...] = (
    ("accuracy", "accuracy", False),
    ("top5", "top-5", False),
    ("balanced_accuracy", "balanced accuracy", False),
    ("macro_f1", "macro F1", False),
    ("mean_average_precision", "mAP", False),
    ("log_loss", "log-loss", True),
    ("ece", "ECE", True),
)
_SHARES = frozenset({"accuracy", "top5", "balanced_accuracy", "macro_f1", "mean_average_precision", "ece"})
_DIVIDED = 1e-9  # figures nearer than this are equal

Metrics = Mapping[str, Any]  # as metrics.json holds them


@dataclass(frozen=True, kw_only=True)
class Row:
    name: str  # as it was given
    model: str
    step: int | None
    image_size: str
    data: str
    split: str
    count: int
    figures: dict[str, float]
    interval: tuple[float, float] | None  # of the accuracy


@dataclass(frozen=True, kw_only=True)
class Runs:
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def columns(self) -> list[tuple[str, str, bool]]:
        """The figures that any of the runs has."""
        return [column for column in FIGURES if any(column[0] in row.figures for row in self.rows)]

    @property
    def comparable(self) -> bool:
        """Whether all were evaluated on as many images of one split of one source."""
        return len({(row.data, row.split, row.count) for row in self.rows}) < 2

    def best(self, key: str) -> set[int]:
        """Returns the rows with the best figure, of runs that can be compared."""
        less = {name: less for name, _, less in FIGURES}[key]
        values = {i: row.figures[key] for i, row in enumerate(self.rows) if key in row.figures}
        if not self.comparable or len(values) < 2:
            return set()
        top = min(values.values()) if less else max(values.values())
        return {i for i, value in values.items() if abs(value - top) < _DIVIDED}

    def to_json(self) -> list[dict[str, Any]]:
        """Returns each run with its figures, as metrics.json has them; None where it has none."""
        about = ("model", "step", "image_size", "split", "count")
        return [
            {
                "run": row.name,
                **{name: getattr(row, name) for name in about},
                "source": row.data,
                **{key: row.figures.get(key) for key, _, _ in self.columns},
                "interval": None if row.interval is None else {"low": row.interval[0], "high": row.interval[1]},
            }
            for row in self.rows
        ]

    def to_csv(self) -> str:
        """Returns the table as CSV: shares are fractions, and what a run does not have is empty."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        keys = [key for key, _, _ in self.columns]
        ends = ("accuracy_low", "accuracy_high")
        writer.writerow(("run", "model", "step", "image_size", "source", "split", "count", *keys, *ends))
        for row in self.rows:
            own = (row.name, row.model, "" if row.step is None else row.step, row.image_size, row.data, row.split)
            found = (row.figures.get(key, "") for key in keys)
            writer.writerow((*own, row.count, *found, *(row.interval or ("", ""))))
        return out.getvalue()


def shown(key: str, value: float | None) -> str:
    """Returns a figure as text."""
    if value is None:
        return "–"
    return f"{value:.2%}" if key in _SHARES else f"{value:.4f}"


def table_of(
    paths: Sequence[str], split: str, evaluate: Callable[[RunDirectory], Metrics], *, anew: bool = False
) -> Runs:
    """Returns the table over runs; what is no run is passed over, and the notes say so.

    Args:
        paths: of run directories, and of what else a pattern like runs/* finds.
        split: that is looked at.
        evaluate: evaluates a run that has no report of its best checkpoint on this split.
        anew: evaluate all of them.

    Raises:
        UserError: if none of them is a run.
    """
    rows: list[Row] = []
    notes: list[str] = []
    for path in paths:
        try:
            run = open_run(path)
        except UserError as error:
            notes.append(f"passed over: {error}")
            continue
        try:
            found = None if anew else _kept(run, split)
            rows.append(_row(path, run, evaluate(run) if found is None else found))
        except UserError as error:
            notes.append(f"passed over: {path} cannot be evaluated: {error}")
    if not rows:
        said = "; ".join(notes) or "none was given"
        raise UserError(f"--table found no run that can be evaluated ({said}): give run directories, as runs/*")
    runs = Runs(rows=tuple(rows), notes=tuple(notes))
    if runs.comparable:
        return runs
    data = "; ".join(dict.fromkeys(f"{row.count:,} of {row.split} of {row.data}" for row in rows))
    note = f"the runs were evaluated on different images, and their figures cannot be compared: {data}"
    return Runs(rows=runs.rows, notes=(*runs.notes, note))


def _kept(run: RunDirectory, split: str) -> Metrics | None:
    """Returns the metrics of a report that is of this split and of the best checkpoint, answered as usual."""
    path = run.report / "metrics.json"
    if kind_of(path) != "file":
        return None
    try:
        found = read_json(path)
        current = found.get("step") == choose(run.checkpoints, "best")
    except UserError:
        return None
    other = any(key in found for key in ("file", "tta", "size", "class_map"))
    own = found.get("source") == run.read_config().data.source
    return found if found.get("split") == split and current and own and not other and "ece" in found else None


def _row(path: str, run: RunDirectory, metrics: Metrics) -> Row:
    preprocess = run.read_model().preprocess
    height, width = preprocess.height, preprocess.width
    interval = metrics.get("interval") or {}
    known = isinstance(interval, Mapping) and interval.get("low") is not None
    return Row(
        name=str(path),
        model=str(metrics["model"]),
        step=metrics.get("step"),
        image_size=str(height) if height == width else f"{height}×{width}",
        data=str(metrics["source"]),
        split=str(metrics["split"]),
        count=int(metrics["count"]),
        figures={key: float(metrics[key]) for key, _, _ in FIGURES if metrics.get(key) is not None},
        interval=(float(interval["low"]), float(interval["high"])) if known else None,
    )
