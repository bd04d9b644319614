"""Curves of runs that a benchmark has made, over the time since each was started."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Curve = Sequence[Sequence[float]]  # seconds since the command, and a share


def rows_of(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def points(workdir: Path, metric: str, began: float) -> list[tuple[float, float]]:
    """Returns the curve of a metric of a run that was started at this time."""
    return [(row["time"] - began, row[metric]) for row in rows_of(workdir) if metric in row]


def draw(found: Mapping[str, Sequence[Curve]], file: Path, what: str, ends: Mapping[str, Curve] | None = None) -> None:
    """Draws the mean of several runs' curves, by the name that they share, and the range that they span.

    Args:
        found: curves of equally many points under one name.
        file: .svg or .png.
        what: the vertical axis shows.
        ends: more points by the same names, drawn as stars.
    """
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for name, curves in found.items():
        by_point = list(zip(*curves, strict=True))
        seconds = [statistics.mean(second for second, _ in each) for each in by_point]
        shares = [[100 * share for _, share in each] for each in by_point]
        (line,) = axes.plot(seconds, [statistics.mean(each) for each in shares], marker=".", label=name)
        lowest, highest = (list(map(end, shares)) for end in (min, max))
        axes.fill_between(seconds, lowest, highest, alpha=0.15, color=line.get_color())
        for second, share in (ends or {}).get(name, ()):
            axes.plot(second, 100 * share, marker="*", color=line.get_color(), linestyle="")
    axes.set_xlabel("seconds since the command")
    axes.set_ylabel(f"{what}, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file)
