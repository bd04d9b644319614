"""How sure the model is, and how often it is then right."""

from typing import TYPE_CHECKING

import numpy as np

from jaxnets import figures
from jaxnets.evaluate.decisions import in_words
from jaxnets.evaluate.page.section import Section, drawing, paragraph, percent, side_by_side, table
from jaxnets.evaluate.reliability import BINS, Coverage, Reliability
from jaxnets.evaluate.run import Evaluation
from jaxnets.evaluate.several_labels import JudgedSeveral

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WANTED = (0.9, 0.95, 0.98, 0.99, 0.995)  # accuracies whose coverage is listed


def calibration(evaluation: Evaluation) -> Section:
    """Returns the reliability diagram, and accuracy against coverage."""
    judged = evaluation.judged
    several = isinstance(judged, JudgedSeveral)
    reliable, covered = draw_reliability(judged.reliability), draw_coverage(judged.coverage)
    error, worst = judged.reliability.expected_error, judged.reliability.maximal_error
    what = "of all questions, yes or no" if several else "of the most probable class"
    at = "" if evaluation.temperature == 1 else f" Probabilities are at the temperature {evaluation.temperature:.3g}."
    html = side_by_side(
        (
            drawing(
                reliable,
                "reliability diagram",
                f"Expected calibration error {percent(error, 2)}, the largest of a bin {percent(worst)}; confidence "
                f"{what}. Bars below the line: more sure than right.{at}",
            ),
            drawing(
                covered,
                "accuracy against coverage",
                "Answering only where the model is surest, and leaving the rest to a person: how many images are "
                "answered, and how many of these rightly.",
            ),
        )
    )
    rows = []
    for accuracy in _WANTED:
        share = judged.coverage.share_at(accuracy)
        at_least = judged.coverage.confidence[judged.coverage.share <= share]
        rows.append((percent(accuracy), percent(share), f"{at_least[-1]:.4f}" if share else "–"))
    html += table(("accuracy", "answered", "if as sure as"), rows, numbers=(1, 2))
    instead = "" if several else ": --precision chooses one on the validation split, and keeps it with the run"
    html += paragraph(f"These thresholds are read off the images they are judged by, and flatter{instead}.", "dim")
    if said := in_words(evaluation.metrics):
        html += "".join(paragraph(_as_on_the_page(sentence)) for sentence in said)
    return Section(
        "How sure it is",
        html,
        "calibration",
        {"reliability.png": figures.png(reliable), "coverage.png": figures.png(covered)},
    )


def _as_on_the_page(said: str) -> str:
    """Returns what a terminal shows as a sentence of the page, with its per cents as the tables have them."""
    return f"{said[0].upper()}{said[1:]}.".replace("%", "\N{NO-BREAK SPACE}%")


def draw_reliability(found: Reliability) -> "Figure":
    """Returns accuracy by confidence, with how many answers there are of each confidence below."""
    figure = figures.new_figure(4.4, 4.1)
    above, below = figure.subplots(2, sharex=True, height_ratios=(3.2, 1))
    middle, width = (np.arange(BINS) + 0.5) / BINS, 1 / BINS
    above.plot((0, 1), (0, 1), color=figures.GREY, linewidth=1, linestyle="--", label="calibrated")
    there = found.count > 0
    above.bar(middle[there], found.accuracy[there], 0.92 * width, color=figures.BLUE, alpha=0.75, label="right")
    above.scatter(
        found.confidence[there], found.accuracy[there], s=10, color=figures.ORANGE, zorder=3, label="mean confidence"
    )
    above.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
    figure.legend(loc="outside upper left", ncols=3, handlelength=1.4, columnspacing=1.2)
    below.bar(middle, found.count / max(found.count.sum(), 1), 0.92 * width, color=figures.GREY)
    below.set(xlabel="confidence", ylabel="share of all")
    return figure


def draw_coverage(found: Coverage) -> "Figure":
    """Returns accuracy against the share of images that are answered."""
    figure = figures.new_figure(4.4, 3.3)
    axes = figure.subplots()
    chosen = np.unique(np.linspace(0, max(len(found.share) - 1, 0), 400).astype(int))
    axes.plot(found.share[chosen], found.accuracy[chosen], color=figures.BLUE)
    late = found.accuracy[found.share >= 0.05]  # the first few images say little
    low = min(float(late.min(initial=1.0)), 0.995)
    axes.set(xlabel="share of images answered, the surest first", ylabel="share of them right", xlim=(0, 1))
    axes.set_ylim(max(low - 0.15 * (1 - low), 0), 1.0 + 0.02 * (1 - low))
    return figure
