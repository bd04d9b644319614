"""What the demo says of a model: a run's curves, metrics and configuration, or a pretrained model's card."""

import dataclasses
import json
from collections import defaultdict
from typing import Any

import jax
from images import Shown

from jaxnets.answer import refuses, thresholds_of
from jaxnets.errors import UserError
from jaxnets.run.directory import RunDirectory, read_json
from jaxnets.schema import flatten

_POINTS = 500  # of a curve, at most
_CURVES = {  # in the order of the page
    "loss": "Loss",
    "mean_average_precision": "Mean average precision",
    "accuracy": "Accuracy",
    "learning_rate": "Learning rate",
}
_HIDDEN = ("format", "per_class")

Point = tuple[int, float, str]  # step, value, whose: train, or the split of an evaluation


def curves(run: RunDirectory) -> dict[str, list[Point]]:
    """Returns the curves of metrics.jsonl by their titles.

    A line that is not whole, as the last of a run in progress may be, is left out.
    """
    found: dict[str, dict[str, list[Point]]] = defaultdict(lambda: defaultdict(list))
    try:
        lines = run.metrics.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    for line in lines:
        try:
            row = json.loads(line)
            step = int(row["step"])
        except (ValueError, KeyError, TypeError):
            continue
        for key, value in row.items():
            group, _, name = key.partition("/")
            if name in _CURVES and isinstance(value, int | float):
                series = str(row.get("eval/split", group)) if group == "eval" else group
                found[name][series].append((step, float(value), series))
    return {
        title: [point for points in found[name].values() for point in _thin(points)]
        for name, title in _CURVES.items()
        if name in found
    }


def metrics(run: RunDirectory) -> list[tuple[str, str]]:
    """Returns what report/metrics.json holds; nothing where there is none that can be read."""
    return [(key, _brief(value)) for key, value in _report(run).items() if key not in _HIDDEN]


def per_class(run: RunDirectory) -> list[tuple[str, int, float]]:
    """Returns class, examples and `measure` of each class of the report, the worst class first."""
    rows = _report(run).get("per_class") or {}
    key = measure(run)
    known = [(name, row["count"], round(row[key], 4)) for name, row in rows.items() if row["count"]]
    return sorted(known, key=lambda row: row[2])


def measure(run: RunDirectory) -> str:
    """Returns what tells good classes from bad ones.

    Where an image may have several labels it is F1: of most images a rare label is rightly not said.
    """
    rows = (_report(run).get("per_class") or {}).values()
    return "f1" if any("threshold" in row for row in rows) else "accuracy"


def configuration(run: RunDirectory) -> list[tuple[str, str]]:
    """Returns config.json as keys with dots and values."""
    return [(key, _brief(value)) for key, value in flatten(run.read_config()).items()]


def card(shown: Shown) -> list[tuple[str, str]]:
    """Returns what there is to know of any model."""
    classifier, preprocess = shown.classifier, shown.classifier.preprocess
    parameters = sum(leaf.size for leaf in jax.tree.leaves(classifier.variables["params"]))
    names = shown.names
    colours = "grey" if preprocess.channels == 1 else "RGB"
    crop = f", the middle {preprocess.crop_fraction:.1%} of it" if preprocess.crop_fraction < 1 else ""
    thresholds = thresholds_of(classifier)
    rows = [
        ("model", classifier.name),
        ("parameters", f"{parameters:,}"),
        ("classes", f"{len(names):,}: {', '.join(names[:4])}{', …' if len(names) > 4 else ''}"),
        ("sees", f"{preprocess.height} × {preprocess.width} pixels, {colours}{crop}, {preprocess.interpolation}"),
    ]
    if thresholds is not None:
        of_each = ", ".join(f"{name} {p:.3g}" for name, p in zip(names[:4], thresholds, strict=False))
        rows.append(("says a label above", f"{of_each}{', …' if len(names) > 4 else ''}"))
    if classifier.temperature is not None:
        rows.append(("temperature", f"{classifier.temperature:.4g}, fitted on held-out images"))
    if refuses(classifier):
        assert classifier.refusal is not None
        rows.append(("none of these", classifier.refusal.wanted or "beyond its bounds"))
    if classifier.step is not None:
        rows.append(("checkpoint", f"step {classifier.step:,}"))
    else:
        rows.append(("weights", "pretrained, by name: never trained or fine-tuned here"))
    return rows


def _report(run: RunDirectory) -> dict[str, Any]:
    try:
        return read_json(run.report / "metrics.json")
    except UserError:
        return {}


def _brief(value: Any) -> str:
    if dataclasses.is_dataclass(value) or isinstance(value, dict):
        return json.dumps(value, default=str)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _thin(points: list[Point]) -> list[Point]:
    """Returns evenly chosen points, the last among them."""
    stride = -(-len(points) // _POINTS)
    return points[::-1][::stride][::-1]
