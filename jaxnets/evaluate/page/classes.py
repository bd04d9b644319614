"""Each class by itself."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnets import figures
from jaxnets.evaluate.page.section import Section, drawing, number, paragraph, percent, table
from jaxnets.evaluate.run import Evaluation
from jaxnets.evaluate.several_labels import JudgedSeveral

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BARS = 40  # classes that a bar each is drawn for
_LONGEST = 22  # characters of a name in a drawing


def classes(evaluation: Evaluation) -> Section:
    """Returns precision, recall, F1 and the rest of each class, the weakest first."""
    rows: dict[str, dict[str, Any]] = evaluation.metrics["per_class"]
    several = isinstance(evaluation.judged, JudgedSeveral)
    order = sorted(rows, key=lambda name: (rows[name]["f1"] is None, rows[name]["f1"] or 0.0))
    columns = ["images", *(["threshold"] if several else []), "precision", "recall", "F1", "ROC-AUC", "PR-AUC"]
    shown = order if len(order) <= _BARS else [name for name in order if rows[name]["support"] or _is_said(rows[name])]
    body = [
        (
            name,
            f"{rows[name]['support']:,}",
            *([number(rows[name]["threshold"], 2)] if several else []),
            *(percent(rows[name][key]) for key in ("precision", "recall", "f1")),
            number(rows[name]["roc_auc"]),
            number(rows[name]["average_precision"]),
        )
        for name in shown
    ]
    drawn = draw(rows, order)
    html = paragraph(
        "Precision: of the images said to be of a class, the share that is. Recall: of the images of a class, the "
        "share that is said to be. F1: their harmonic mean. A dash: there is nothing that it could be the share of.",
        "dim",
    )
    html += drawing(drawn, "F1 of each class", _caption(rows, order))
    html += table(("class", *columns), body, numbers=tuple(range(1, len(columns) + 1)), scroll=len(body) > 14)
    if left_out := len(order) - len(shown):
        html += paragraph(f"Left out are {left_out:,} classes that no image has or was said to have.", "dim")
    return Section("Classes", html, "classes", {"classes.png": figures.png(drawn)})


def _is_said(row: dict[str, Any]) -> bool:
    return row["precision"] is not None  # the share of those images that are


def draw(rows: dict[str, dict[str, Any]], order: list[str]) -> "Figure":
    """Returns precision, recall and F1 of each class; of many classes, how many have which F1."""
    if len(order) > _BARS:
        figure = figures.new_figure(4.6, 2.8)
        axes = figure.subplots()
        known = [rows[name]["f1"] for name in order if rows[name]["f1"] is not None]
        axes.hist(known, np.linspace(0, 1, 41).tolist(), color=figures.BLUE)
        axes.set(xlabel="F1 of a class", ylabel="classes", xlim=(0, 1))
        return figure
    figure = figures.new_figure(4.6, 0.75 + 0.24 * max(len(order), 2))
    axes = figure.subplots()
    at = np.arange(len(order))
    values = {
        key: np.array([np.nan if rows[name][key] is None else rows[name][key] for name in order])
        for key in ("precision", "f1", "recall")
    }
    axes.hlines(at, values["precision"], values["recall"], color=figures.GREY, linewidth=1)
    for key, label, mark, colour in (
        ("precision", "precision", "<", figures.ORANGE),
        ("f1", "F1", "|", figures.INK),
        ("recall", "recall", "o", figures.BLUE),
    ):
        axes.scatter(values[key], at, marker=mark, s=60 if mark == "|" else 20, color=colour, label=label, zorder=3)
    axes.set_yticks(at, [short(name) for name in order])
    every = np.concatenate(list(values.values()))
    low = float(np.nanmin(every)) if not np.isnan(every).all() else 0.0
    margin = 0.03 * (1 - low) + 0.002
    axes.set(xlim=(max(low - 3 * margin, -margin), 1 + margin), ylim=(len(order) - 0.4, -0.6))
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside upper right", ncols=3)
    return figure


def short(name: str, longest: int = _LONGEST) -> str:
    """Returns a name as a drawing has room for it."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _caption(rows: dict[str, dict[str, Any]], order: list[str]) -> str:
    worst = ", ".join(f"{name} ({percent(rows[name]['f1'])})" for name in order[:3] if rows[name]["f1"] is not None)
    unknown = sum(rows[name]["support"] == 0 for name in order)
    without = f" {unknown:,} of the {len(order):,} classes have no images in this split." if unknown else ""
    return (f"Weakest by F1: {worst}." if worst else "") + without
