"""What the page is made of. Every name that comes from elsewhere is escaped here."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from jaxnets import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Section:
    title: str  # plain text
    html: str
    anchor: str  # that links lead to: letters, digits and hyphens
    files: Mapping[str, bytes] = field(default_factory=dict)  # by name: what lies beside the page


def percent(share: float | None, digits: int = 1) -> str:
    """Returns a share as a person reads it; a dash where it is undefined."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str | float | int]],
    *,
    numbers: Sequence[int] = (),
    scroll: bool = False,
) -> str:
    """Returns a table; text is escaped.

    Args:
        head: of the columns.
        rows: a cell for each column.
        numbers: the columns that are aligned to the right.
        scroll: whether many rows scroll within a box; on paper they are all there.
    """

    def cell(tag: str, column: int, text: object) -> str:
        mark = " class=number" if column in numbers else ""
        return f"<{tag}{mark}>{escape(str(text))}</{tag}>"

    lines = "".join(f"<tr>{''.join(cell('td', i, x) for i, x in enumerate(row))}</tr>" for row in rows)
    heads = "".join(cell("th", i, x) for i, x in enumerate(head))
    inside = f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"
    return f'<div class="scroll{" tall" if scroll else ""}">{inside}</div>'


def tile(value: str, label: str, remark: str = "") -> str:
    """Returns one figure in large type, what it is, and a word on it."""
    small = f"<small>{escape(remark)}</small>" if remark else ""
    return f"<div class=tile><b>{escape(value)}</b><span>{escape(label)}</span>{small}</div>"


def tiles(each: Iterable[str]) -> str:
    return f"<div class=tiles>{''.join(each)}</div>"


def paragraph(text: str, kind: str = "") -> str:
    return f"<p{f' class={kind}' if kind else ''}>{escape(text)}</p>"


def drawing(figure: "Figure", described: str, caption: str = "", *, wide: bool = False) -> str:
    """Returns a drawn figure; `described` is for those who hear the page. A `wide` one scrolls on a phone."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    inside = figures.svg(figure, described)
    return f"<figure class=drawing>{f'<div class=wide>{inside}</div>' if wide else inside}{below}</figure>"


def side_by_side(parts: Iterable[str]) -> str:
    """Returns parts in columns where there is room, else below each other."""
    return f"<div class=columns>{''.join(parts)}</div>"


def image(uri: str | None, caption: str, described: str = "") -> str:
    """Returns an image over its caption, which is HTML."""
    inside = (
        "<span class=dim>unreadable</span>" if uri is None else f'<img alt="{escape(described)}" src="{escape(uri)}">'
    )
    return f"<figure class=image><div class=frame>{inside}</div><figcaption>{caption}</figcaption></figure>"


def images(each: Iterable[str]) -> str:
    return f"<div class=images>{''.join(each)}</div>"
