"""How well the model tells images of another kind from its own."""

from typing import TYPE_CHECKING

import numpy as np

from jaxnets import figures
from jaxnets.evaluate.page.section import Section, drawing, number, paragraph, percent, side_by_side, table
from jaxnets.evaluate.unlike import TITLES, Unlike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 40


def unlike(found: Unlike) -> Section:
    """Returns each score's separation, and how it is distributed on either side."""
    rows = [
        (
            TITLES[name],
            number(score.auroc.value),
            f"{number(score.auroc.low)} … {number(score.auroc.high)}",
            percent(score.fpr95),
        )
        for name, score in found.scores.items()
    ]
    drawn = {name: draw(found, name) for name in found.scores}
    html = paragraph(
        f"{found.own_count:,} images of the evaluated split and {found.other_count:,} of {found.source}, whose classes "
        "the model does not know. AUROC: the probability that an image of its own has the larger score (0.5 is blind). "
        "FPR at 95 %: how many of the others pass a threshold that 95 % of its own pass."
    )
    html += table(("score", "AUROC", "95 % interval", "FPR at 95 %"), rows, numbers=(1, 2, 3))
    html += side_by_side(drawing(figure, f"{TITLES[name]} on either side", "") for name, figure in drawn.items())
    files = {f"unlike-{name}.png": figures.png(figure) for name, figure in drawn.items()}
    return Section("Images of another kind", html, "unlike", files)


def draw(found: Unlike, name: str) -> "Figure":
    """Returns the distributions of a score."""
    score = found.scores[name]
    figure = figures.new_figure(4.4, 2.6)
    axes = figure.subplots()
    together = np.concatenate((score.own, score.other))
    low, high = np.quantile(together, (0.002, 0.998))
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    for values, label, colour in ((score.own, "its own", figures.BLUE), (score.other, "others", figures.ORANGE)):
        weights = np.full(len(values), 1 / len(values))
        axes.hist(
            np.clip(values, edges[0], edges[-1]), edges.tolist(), weights=weights, alpha=0.55, color=colour, label=label
        )
    axes.axvline(score.threshold, color=figures.DIM, linewidth=0.8, linestyle="--")
    axes.set(xlabel=TITLES[name] if name != "distance" else "minus the distance", ylabel="share of images")
    axes.legend()
    return figure
