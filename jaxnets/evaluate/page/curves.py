"""Curves: of each class against the rest over all thresholds, and of the training."""

from typing import TYPE_CHECKING

import numpy as np

from jaxnets import figures
from jaxnets.evaluate.page.classes import short
from jaxnets.evaluate.page.section import Section, drawing, paragraph, side_by_side
from jaxnets.evaluate.ranking import curves
from jaxnets.evaluate.run import Evaluation
from jaxnets.evaluate.several_labels import JudgedSeveral
from jaxnets.run.curves import draw, read_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DRAWN = 6  # classes
_POINTS = 400  # of a curve, at most


def thresholds(evaluation: Evaluation) -> Section:
    """Returns the ROC and precision-recall curves of the classes that are told from the rest the worst."""
    judged = evaluation.judged
    several = isinstance(judged, JudgedSeveral)
    precision = judged.ranking.average_precision
    known = np.flatnonzero(~np.isnan(precision) & ~np.isnan(judged.ranking.roc_auc))
    if not len(known):
        return Section("Over all thresholds", "", "thresholds")
    if len(evaluation.predictions.class_names) == 2 and not several:
        known = known[-1:]  # the other says the same
    chosen = known[np.argsort(precision[known], kind="stable")][:_DRAWN]
    roc, recall = draw_curves(evaluation, chosen.tolist())
    of = "" if len(chosen) == len(known) else f", of the {len(chosen)} classes with the least area"
    parts = [
        drawing(recall, "precision against recall", f"Precision against recall, each class against the rest{of}."),
        drawing(roc, "ROC curves", f"Right against false alarms (ROC), each class against the rest{of}."),
    ]
    files = {"roc.png": figures.png(roc), "precision-recall.png": figures.png(recall)}
    if isinstance(judged, JudgedSeveral):
        at = draw_f1(judged)
        parts.append(drawing(at, "F1 against threshold", "F1 where one threshold is that of all labels."))
        files["f1-thresholds.png"] = figures.png(at)
    return Section("Over all thresholds", side_by_side(parts), "thresholds", files)


def draw_curves(evaluation: Evaluation, chosen: list[int]) -> tuple["Figure", "Figure"]:
    """Returns the ROC curves and the precision-recall curves of some classes."""
    judged, names = evaluation.judged, evaluation.predictions.class_names
    roc, recall = (figures.new_figure(4.4, 3.6) for _ in range(2))
    left, right = roc.subplots(), recall.subplots()
    left.plot((0, 1), (0, 1), color=figures.GREY, linewidth=1, linestyle="--")
    for number in chosen:
        labels = evaluation.predictions.labels
        has = labels[:, number] if labels.ndim == 2 else labels == number
        scores = evaluation.predictions.logits if labels.ndim == 2 else judged.probabilities
        false, true, precise = curves(has, scores[:, number])
        left.plot(*_thin(false, true), label=f"{short(names[number])} {judged.ranking.roc_auc[number]:.3f}")
        area = judged.ranking.average_precision[number]
        right.step(*_thin(true, precise), where="pre", label=f"{short(names[number])} {area:.3f}")
    left.set(xlabel="false alarms among all others", ylabel="found (recall)", xlim=(-0.01, 1), ylim=(0, 1.02))
    right.set(xlabel="found (recall)", ylabel="right among those (precision)", xlim=(0, 1.01), ylim=(0, 1.02))
    left.legend(loc="lower right", title="area")
    right.legend(loc="lower left", title="area")
    return roc, recall


def draw_f1(judged: JudgedSeveral) -> "Figure":
    figure = figures.new_figure(4.4, 3.3)
    axes = figure.subplots()
    at = np.array(list(judged.f1_at))
    for number, name in enumerate(("macro", "micro")):
        axes.plot(at, [values[number] for values in judged.f1_at.values()], label=name)
    axes.set(xlabel="threshold of all labels", ylabel="F1", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="lower center")
    return figure


def learning(evaluation: Evaluation) -> Section:
    """Returns the curves of the training, as the run directory's curves.png has them."""
    try:
        rows = read_rows(evaluation.run.metrics)
    except OSError:  # a page without them is better than none
        rows = []
    figure = draw(rows, evaluation.metrics["step"])
    if figure is None:
        return Section("Learning", "", "learning")
    html = drawing(figure, "loss, accuracy, learning rate and images per second over the training", wide=True)
    if evaluation.metrics["step"] is not None:
        html += paragraph(f"The weights that are judged here are those of step {evaluation.metrics['step']:,}.", "dim")
    return Section("Learning", html, "learning", {"learning.png": figures.png(figure)})


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(x) <= _POINTS:
        return x, y
    chosen = np.unique(np.linspace(0, len(x) - 1, _POINTS).astype(int))
    return x[chosen], y[chosen]
