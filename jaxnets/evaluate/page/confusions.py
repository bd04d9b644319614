"""Which classes are taken for which: the matrix, and the worst pairs with images."""

from html import escape
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from jaxnets import figures
from jaxnets.evaluate.confusion import Pair, clustered, worst_pairs
from jaxnets.evaluate.page.classes import short
from jaxnets.evaluate.page.images import Images
from jaxnets.evaluate.page.section import Section, drawing, image, images, paragraph, percent, table
from jaxnets.evaluate.run import Evaluation
from jaxnets.evaluate.single_label import Judged

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NUMBERED = 16  # classes, up to which each cell has its number
_NAMED = 60  # up to which each row has its name
_CELLS = 400  # cells of a side, above which several classes share one
_PAIRS = 8  # with images
_LISTED = 40
_OF_EACH = 4


def confusions(evaluation: Evaluation, shown: Images) -> Section:
    """Returns the confusion matrix and the pairs of classes that are confused most."""
    judged = evaluation.judged
    assert isinstance(judged, Judged)
    names = evaluation.predictions.class_names
    # Classes that no image has and none was said to have would be empty lines.
    there = np.flatnonzero(judged.matrix.sum(0) + judged.matrix.sum(1))
    order = there[clustered(judged.matrix[np.ix_(there, there)])]
    pairs = worst_pairs(judged.matrix, _LISTED)
    drawn = draw(judged.matrix, names, order)
    caption = (
        "Rows: what images are. Columns: what they were said to be. Colour: the share of the row's images"
        + (", on a root scale, so that rare mistakes are seen" if len(order) > 2 else "")
        + ". Classes that are confused lie side by side."
    )
    if len(order) < len(names):
        caption += f" {len(names) - len(order):,} classes that no image has or was said to have are left out."
    if len(order) > _CELLS:
        caption += f" Each cell stands for {-(-len(order) // _CELLS)} classes, and has the largest of their shares."
    html = drawing(drawn, "confusion matrix", caption, wide=len(order) > 16)
    if not pairs:
        return Section(
            "Confusions", html + paragraph("No image was taken for one of another class."), "confusions",
            {"confusion.png": figures.png(drawn)},
        )  # fmt: skip
    html += "<h3>Most frequent mistakes</h3>"
    cases = (_case(evaluation, judged, pair, shown) for pair in pairs[:_PAIRS])
    html += f"<div class=pairs>{''.join(cases)}</div>"
    if len(pairs) > _PAIRS:
        rows = [(names[p.true], names[p.said], f"{p.count:,}", percent(p.share)) for p in pairs]
        html += "<details><summary>More pairs</summary>"
        html += table(("is", "was said to be", "images", "of the class"), rows, numbers=(2, 3), scroll=True)
        html += "</details>"
    return Section("Confusions", html, "confusions", {"confusion.png": figures.png(drawn)})


def _case(evaluation: Evaluation, judged: Judged, pair: Pair, shown: Images) -> str:
    """Returns some images of one class that were taken for another, and beside them rightly answered ones of both."""
    predictions, names = evaluation.predictions, evaluation.predictions.class_names
    said = predictions.said
    wrong = _surest(judged, (predictions.labels == pair.true) & (said == pair.said), _OF_EACH)
    cells = [
        image(
            shown.uri(i),
            f"<b>{percent(float(judged.confidence[i]), 0)}</b> {escape(names[pair.said])}<br>{escape(shown.name(i))}",
            shown.name(i),
        )
        for i in wrong
    ]
    for label in (pair.true, pair.said):
        right = _surest(judged, (predictions.labels == label) & (said == label), 1)
        cells += [image(shown.uri(i), f"rightly <b>{escape(names[label])}</b>", shown.name(i)) for i in right]
    what = "image" if pair.count == 1 else "images"
    return (
        f"<div class=case><b>{escape(names[pair.true])} → {escape(names[pair.said])}</b>"
        f"<span class=dim>{pair.count:,} {what}, {percent(pair.share)} of the class</span>{images(cells)}</div>"
    )


def _surest(judged: Judged, mask: np.ndarray, most: int) -> list[int]:
    members = np.flatnonzero(mask)
    return members[np.argsort(-judged.confidence[members], kind="stable")][:most].tolist()


def draw(
    matrix: Int64[np.ndarray, "classes classes"], names: tuple[str, ...], order: Int64[np.ndarray, " classes"]
) -> "Figure":
    """Returns the matrix in this order: with numbers of few classes, with names of some, as an image of many."""
    ordered = matrix[np.ix_(order, order)]
    support = ordered.sum(1, keepdims=True)
    rates = ordered / np.maximum(support, 1)
    classes = len(order)
    side = min(max(2.2 + 0.36 * classes, 3.2), 7.2) if classes <= _NAMED else 7.2
    figure = figures.new_figure(side, side * 0.86)
    axes = figure.subplots()
    axes.grid(visible=False)
    power = 1.0 if classes == 2 else 0.5
    seen = axes.imshow(_pooled(rates) ** power, cmap=figures.SEQUENTIAL, vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlabel="said", ylabel="true")
    if classes <= _NAMED:
        named = [short(names[i], 18) for i in order.tolist()]
        size = 8.5 if classes <= 30 else 5.5
        axes.set_xticks(range(classes), named, rotation=90 if classes > 3 else 0, fontsize=size)
        axes.set_yticks(range(classes), named, fontsize=size)
    else:
        axes.set(xticks=[], yticks=[], xlabel=f"said: {classes:,} classes", ylabel="true")
    if classes <= _NUMBERED:
        for i in range(classes):
            for j in range(classes):
                if ordered[i, j]:
                    ink = "black" if rates[i, j] ** power > 0.55 else "white"
                    axes.text(j, i, f"{ordered[i, j]:,}", ha="center", va="center", color=ink, fontsize=8)
    bar = figure.colorbar(seen, ax=axes, shrink=0.6, aspect=24, pad=0.02)
    ticks = [0, 0.01, 0.05, 0.25, 0.5, 1] if power != 1 else [0, 0.25, 0.5, 0.75, 1]
    bar.set_ticks([tick**power for tick in ticks], labels=[f"{100 * tick:g} %" for tick in ticks])
    bar.outline.set_visible(False)
    return figure


def _pooled(rates: np.ndarray) -> np.ndarray:
    """Returns the largest of neighbouring cells where there are more than can be seen."""
    by = -(-len(rates) // _CELLS)
    if by == 1:
        return rates
    padded = np.pad(rates, (0, -len(rates) % by))
    cells = len(padded) // by
    return padded.reshape(cells, by, cells, by).max((1, 3))
