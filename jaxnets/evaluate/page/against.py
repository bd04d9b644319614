"""The model against others: figures, the test, and the images about which they disagree."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from jaxnets import figures
from jaxnets.evaluate.against import SIGNIFICANT, Comparison, Judged
from jaxnets.evaluate.page.images import Images
from jaxnets.evaluate.page.section import Section, drawing, image, images, paragraph, percent, table
from jaxnets.evaluate.weighted import LESS, SHARES, TITLES, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 12  # images of each kind


def against(comparisons: Sequence[Comparison], pictured: Images) -> Section:
    """Returns each comparison of the evaluated model with another."""
    drawn = draw(comparisons)
    html = "".join(_one(comparison, pictured) for comparison in comparisons)
    several = ", for several comparisons by Holm's method" if len(comparisons) > 1 else ""
    html += paragraph(
        "Both models saw the same images, matched by their names. Probabilities are of McNemar's test: that models "
        f"which are equally good disagree so unevenly (mid-p{several}). Intervals of differences are of a paired "
        "bootstrap, to 95 %: where one does not reach zero, the difference is more than the choice of images.",
        "dim",
    )
    html += drawing(drawn, "differences", "Difference in accuracy, in points, with its 95 % interval.")
    return Section("Against other models", html, "against", {"against.png": figures.png(drawn)})


def _one(comparison: Comparison, pictured: Images) -> str:
    first, second, test = comparison.first, comparison.second, comparison.test
    rows = [
        (
            TITLES[name] + (" (less is better)" if name in LESS else ""),
            shown(name, comparison.figures[name][0].value),
            shown(name, comparison.figures[name][1].value),
            signed(name, difference.value),
            f"{signed(name, difference.low)} … {signed(name, difference.high)}",
            _judgement(comparison, name),
        )
        for name, difference in comparison.differences.items()
    ]
    html = f"<h3>{escape(first.name)} against {escape(second.name)}</h3>" + paragraph(comparison.verdict + ".")
    html += table(("", first.name, second.name, "difference", "95 % interval", "better"), rows, numbers=(1, 2, 3, 4, 5))
    html += table(
        ("", f"{second.name} right", f"{second.name} wrong"),
        [
            (f"{first.name} right", f"{test.both:,}", f"{test.only_first:,}"),
            (f"{first.name} wrong", f"{test.only_second:,}", f"{test.neither:,}"),
        ],
        numbers=(1, 2),
    )
    approximate = "" if test.chi_squared is None else f", chi-squared {test.chi_squared:.3g}"
    adjusted = "" if comparison.p == test.mid_p else f"; adjusted {comparison.p:.3g}"
    html += paragraph(f"McNemar: mid-p {test.mid_p:.3g}{adjusted}, exact {test.exact:.3g}{approximate}.", "dim")
    html += _disagreements(comparison, first_right=True, pictured=pictured)
    return html + _disagreements(comparison, first_right=False, pictured=pictured)


def _judgement(comparison: Comparison, name: str) -> str:
    """Returns which of the two is better by a figure, where its interval says so."""
    difference = comparison.differences[name]
    if not difference.excludes_zero:
        return "not shown"
    return (comparison.second if (difference.value > 0) == (name in LESS) else comparison.first).name


def _disagreements(comparison: Comparison, *, first_right: bool, pictured: Images) -> str:
    """Returns the images that only one of the two has right."""
    first, second = comparison.first, comparison.second
    right = first if first_right else second
    count = comparison.test.only_first if first_right else comparison.test.only_second
    if not count:
        return ""
    chosen = comparison.disagreements(first_right, _SHOWN).tolist()
    cells = [
        image(
            pictured.uri(i),
            f"<b>{escape(_true(first, i))}</b><br>{escape(first.name)}: {escape(_said(first, i))}<br>"
            f"{escape(second.name)}: {escape(_said(second, i))}<br>{escape(pictured.name(i))}",
            pictured.name(i),
        )
        for i in chosen
    ]
    more = f", the {len(chosen)} about which both are surest" if count > len(chosen) else ""
    title = f"Only {right.name} is right: {count:,} images{more}"
    return f"<div class=case><b>{escape(title)}</b>{images(cells)}</div>"


def _true(judged: Judged, i: int) -> str:
    predictions = judged.predictions
    if not predictions.several_labels:
        return predictions.class_names[int(predictions.labels[i])]
    return "+".join(predictions.class_names[j] for j in np.flatnonzero(predictions.labels[i])) or "none"


def _said(judged: Judged, i: int) -> str:
    one = judged.predictions.take(np.array([i]))
    row = one.probabilities(judged.temperature)[0]
    if not one.several_labels:
        return f"{one.class_names[int(row.argmax())]} {percent(float(row.max()), 0)}"
    bounds = judged.thresholds or (0.5,) * len(row)
    return "+".join(one.class_names[j] for j in np.flatnonzero(row > np.asarray(bounds, row.dtype))) or "none"


def draw(comparisons: Sequence[Comparison]) -> "Figure":
    """Returns each difference in accuracy with its interval."""
    figure = figures.new_figure(5.2, 0.8 + 0.4 * len(comparisons))
    axes = figure.subplots()
    for row, comparison in enumerate(comparisons):
        difference = comparison.differences["accuracy"]
        colour = figures.BLUE if comparison.p < SIGNIFICANT else figures.GREY
        axes.plot((100 * difference.low, 100 * difference.high), (row, row), color=colour)
        axes.plot(100 * difference.value, row, "o", color=colour)
    axes.axvline(0, color=figures.DIM, linewidth=0.8)
    axes.set_yticks(range(len(comparisons)), [f"against {comparison.second.name}"[-40:] for comparison in comparisons])
    axes.set(xlabel="points of accuracy", ylim=(len(comparisons) - 0.5, -0.5))
    return figure


def signed(name: str, value: float) -> str:
    """Returns a difference as text: of shares in points."""
    if np.isnan(value):
        return "–"
    return f"{100 * value:+.2f}" if name in SHARES else f"{value:+.4f}"
