"""A run's course: the rows of metrics.jsonl, the curves in them, and their drawing."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jaxnets.run.storage import Place, bucket_errors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 1000  # of a line, at most: a drawing is not that wide
_FEWEST_EPOCHS = 2.0  # of a run, below which its steps are counted
_RAW = "raw weights"

Row = Mapping[str, Any]  # of metrics.jsonl
Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """What one drawing shows: a line for each of what it is of."""

    title: str
    lines: dict[str, list[Point]] = field(default_factory=dict)  # by "train", the split of an evaluation, …

    def __bool__(self) -> bool:
        return any(self.lines.values())


def read_rows(path: Place) -> list[dict[str, Any]]:
    """Returns the rows of a metrics.jsonl, none where there is none; a line that was cut short is left out.

    Raises:
        OSError: if it is there and cannot be read.
    """
    try:
        with bucket_errors(path):
            lines = path.read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # of what is no UTF-8, too
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def curves(rows: Sequence[Row]) -> list[Curve]:
    """Returns the curves that there are something to show of, by epochs, or by steps where a run has few epochs.

    Loss; accuracy, or of several labels the mean average precision; the learning rate; images per second.
    """
    several = any("eval/mean_average_precision" in row for row in rows)
    chief = "mean_average_precision" if several else "accuracy"
    names = {
        "Loss": ("loss", ("train", "eval", "raw", "test")),
        chief.replace("_", " ").capitalize(): (chief, ("train", "eval", "raw", "test")),
        "Learning rate": ("learning_rate", ("train",)),
        "Images per second": ("images_per_second", ("train",)),
    }
    x = horizontal(rows)
    found = []
    for title, (name, groups) in names.items():
        curve = Curve(title)
        for group in groups:
            key = f"eval/raw_{name}" if group == "raw" else f"{group}/{name}"
            for row in rows:
                if _is_number(row.get(key)) and _is_number(row.get(x)):
                    label = {"eval": str(row.get("eval/split", "validation")), "raw": _RAW}.get(group, group)
                    curve.lines.setdefault(label, []).append((float(row[x]), float(row[key])))
        if curve:
            found.append(Curve(title, {label: thinned(points) for label, points in curve.lines.items()}))
    return found


def horizontal(rows: Sequence[Row]) -> str:
    """Returns the key of what the curves are drawn over: "epoch", or "step" where there are few epochs."""
    epochs = [row["epoch"] for row in rows if _is_number(row.get("epoch"))]
    return "epoch" if max(epochs, default=0) >= _FEWEST_EPOCHS else "step"


def thinned(points: list[Point]) -> list[Point]:
    """Returns evenly chosen points, the last among them."""
    return points[::-1][:: -(-len(points) // POINTS)][::-1]


def draw(rows: Sequence[Row], best_step: int | None = None) -> "Figure | None":
    """Returns the curves as one figure; None where all that there is lies at one step. A thin line marks the best."""
    found, x = curves(rows), horizontal(rows)
    if len({point[0] for curve in found for points in curve.lines.values() for point in points}) < 2:
        return None
    from jaxnets import figures

    across = 2 if len(found) > 1 else 1
    down = -(-len(found) // across)
    height = 2.7 * down
    figure = figures.new_figure(figures.WIDTH * across, height)
    figure.set_layout_engine(None)  # which would draw it twice
    figure.subplots_adjust(
        left=0.13 / across, right=0.99, bottom=0.45 / height, top=1 - 0.28 / height, wspace=0.18, hspace=0.42
    )
    best = next((row[x] for row in rows if row["step"] == best_step and _is_number(row.get(x))), None)
    along = [float(row[x]) for row in rows if _is_number(row.get(x))]
    with figures.style():
        for number, curve in enumerate(found, 1):
            axes = figure.add_subplot(down, across, number)
            _panel(axes, curve, x, best)
            axes.set_xlim(*_around(min(along), max(along)))  # one for all
    return figure


def _panel(axes: Any, curve: Curve, x: str, best: float | None) -> None:
    from jaxnets import figures

    for label, points in curve.lines.items():
        own = figures.COLOURS[_COLOURS.get(label, 1)]
        across, up = zip(*points, strict=True)
        if len(points) == 1:
            axes.plot(across, up, "D" if label == "test" else "o", color=own, label=label)
        elif label == _RAW:
            axes.plot(across, up, "--", color=own, label=label, linewidth=1.0)
        else:
            axes.plot(across, up, color=own, label=label)
    if best is not None and any(label in ("validation", "test") for label in curve.lines):
        axes.axvline(best, color=figures.GREY, linewidth=0.9, linestyle=":", label="best")
    axes.set_title(curve.title)
    axes.set_xlabel("epochs" if x == "epoch" else "steps")
    if curve.title == "Images per second":
        axes.set_ylim(0, 1.05 * max(value for points in curve.lines.values() for _, value in points))
    if curve.title in _SHARES:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
    if len(curve.lines) > 1:
        axes.legend()


def _around(low: float, high: float) -> tuple[float, float]:
    """Returns the ends of an axis that shows what lies between two numbers."""
    margin = 0.03 * (high - low)
    return low - margin, high + margin


_SHARES = ("Accuracy", "Mean average precision")
_COLOURS = {"train": 0, "validation": 1, _RAW: 1, "test": 2}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
