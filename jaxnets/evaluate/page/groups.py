"""Every figure by group, and the gaps between the groups."""

from typing import TYPE_CHECKING

from jaxnets import figures
from jaxnets.evaluate.groups import SMALL, ByGroup
from jaxnets.evaluate.page.classes import short
from jaxnets.evaluate.page.section import Section, drawing, paragraph, table
from jaxnets.evaluate.weighted import LESS, TITLES, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DRAWN = 40  # groups
_LISTED = 400


def groups(found: ByGroup) -> Section:
    """Returns the figures of each group, the largest first."""
    names = list(found.together)
    rows = [
        (
            group.name + (" (small)" if group.small else ""),
            f"{group.count:,}",
            *(shown(name, group.figures[name].value) for name in names),
        )
        for group in found.groups[:_LISTED]
    ]
    total = sum(group.count for group in found.groups)
    rows.append(("all", f"{total:,}", *(shown(name, found.together[name]) for name in names)))
    drawn = draw(found)
    html = paragraph(_verdict(found))
    html += drawing(drawn, "accuracy by group", "Accuracy of each group with its 95 % interval; grey: small groups.")
    head = (found.column, "images", *(TITLES[name] for name in names))
    html += table(head, rows, numbers=tuple(range(1, len(head))), scroll=len(rows) > 14)
    if len(found.groups) > _LISTED:
        html += paragraph(f"and {len(found.groups) - _LISTED:,} groups more in metrics.json", "dim")
    if found.gaps:
        html += "<h3>Gaps</h3>" + table(
            ("", "best", "worst", "gap", "95 % interval"),
            [
                (
                    TITLES[name] + (" (less is better)" if name in LESS else ""),
                    gap.best,
                    gap.worst,
                    shown(name, gap.difference.value),
                    f"{shown(name, gap.difference.low)} … {shown(name, gap.difference.high)}",
                )
                for name, gap in found.gaps.items()
            ],
            numbers=(3, 4),
        )
    html += paragraph(
        f"A group of fewer than {SMALL} images is small, and makes no gap. The best and the worst of many groups lie "
        "apart by chance too: how often blindly drawn groups of these sizes have as large a gap in accuracy is what "
        "the probability says. Means over classes are over those that a group has.",
        "dim",
    )
    return Section(f"By {found.column}", html, "groups", {"groups.png": figures.png(drawn)})


def _verdict(found: ByGroup) -> str:
    gap = found.gaps.get("accuracy")
    if gap is None or gap.p is None:
        return f"Fewer than two groups have {SMALL} images: nothing can be said of gaps."
    chance = f"as large a gap comes about by chance with probability {gap.p:.2g}"
    limits = f"{100 * gap.difference.low:.1f} … {100 * gap.difference.high:.1f}"
    return (
        f"Accuracy is {100 * gap.difference.value:.1f} points ({limits}) higher for {gap.best} than for {gap.worst}; "
        f"{chance}."
    )


def draw(found: ByGroup) -> "Figure":
    """Returns the accuracy of each group with its interval."""
    shown_groups = found.groups[:_DRAWN]
    figure = figures.new_figure(5.2, 0.8 + 0.26 * max(len(shown_groups), 2))
    axes = figure.subplots()
    for row, group in enumerate(shown_groups):
        colour = figures.GREY if group.small else figures.BLUE
        value = group.figures["accuracy"]
        axes.plot((100 * value.low, 100 * value.high), (row, row), color=colour)
        axes.plot(100 * value.value, row, "o", color=colour)
    axes.axvline(100 * found.together["accuracy"], color=figures.DIM, linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(shown_groups)), [f"{short(group.name)} ({group.count:,})" for group in shown_groups])
    axes.set(xlabel="accuracy, %", ylim=(len(shown_groups) - 0.5, -0.5))
    return figure
