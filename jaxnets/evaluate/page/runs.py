"""The table over runs as a section, and as a page of its own."""

from html import escape
from typing import TYPE_CHECKING

from jaxnets import figures
from jaxnets.evaluate.page.document import document
from jaxnets.evaluate.page.section import Section, drawing, paragraph
from jaxnets.evaluate.runs_table import Runs, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def runs(found: Runs) -> Section:
    """Returns the table, the best figure of each column in bold, and a drawing of the accuracies."""
    heads = ["run", "model", "step", "size", "images", *(title for _, title, _ in found.columns)]
    head = "".join(f"<th{' class=number' if i > 1 else ''}>{escape(title)}</th>" for i, title in enumerate(heads))
    best = {key: found.best(key) for key, _, _ in found.columns}
    lines = []
    for i, row in enumerate(found.rows):
        cells = [escape(row.name), escape(row.model)]
        numbers = ["–" if row.step is None else f"{row.step:,}", row.image_size, f"{row.count:,}"]
        for key, _, _ in found.columns:
            text = shown(key, row.figures.get(key))
            numbers.append(f"<b>{text}</b>" if i in best[key] else text)
        lines.append(
            "<tr>" + "".join(f"<td>{x}</td>" for x in cells) + "".join(f"<td class=number>{x}</td>" for x in numbers)
            + "</tr>"
        )  # fmt: skip
    html = (
        f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        + drawing(draw(found), "accuracies", "Accuracy with its 95 % interval.")
        + "".join(paragraph(note, "dim") for note in found.notes)
    )
    return Section("Runs", html, "runs", {"runs.csv": found.to_csv().encode()})


def page(found: Runs) -> str:
    """Returns a page with the table alone."""
    return document(f"{len(found.rows)} runs", "", [runs(found)])


def draw(found: Runs) -> "Figure":
    """Returns each run's accuracy with its interval."""
    figure = figures.new_figure(5.2, 0.8 + 0.28 * max(len(found.rows), 2))
    axes = figure.subplots()
    for i, row in enumerate(found.rows):
        if row.interval is not None:
            axes.plot((100 * row.interval[0], 100 * row.interval[1]), (i, i), color=figures.BLUE)
        axes.plot(100 * row.figures["accuracy"], i, "o", color=figures.BLUE)
    axes.set_yticks(range(len(found.rows)), [row.name[-40:] for row in found.rows])
    axes.set(xlabel="accuracy, %", ylim=(len(found.rows) - 0.5, -0.5))
    return figure
