"""How figures look, and how they are written: in one style, for a page, for print and for a file.

Figures are matplotlib's own objects (`matplotlib.figure.Figure`), never pyplot's: those belong to a window system and
to the whole process. matplotlib is imported when the first figure is made.
"""

import io
import re
import threading
import warnings
from contextlib import contextmanager
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

WIDTH, HEIGHT = 4.6, 3.3  # inches: at 96 pixels each, a page's column and a phone's width are about that
INK, DIM, LINE = "#1b1f24", "#5c6670", "#dfe3e8"  # text and axes, what explains, what guides the eye
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#2f6fde", "#d9730d", "#2b8a57", "#c62828", "#7e57c2", "#8a949e"
# Told apart with any colour vision, and in grey by their lightness.
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, GREY, "#00838f", "#ad8b00")
SEQUENTIAL = "cividis"  # for maps of numbers: lighter is more, with any colour vision and in print

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": DIM,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "a$b$"
    "xtick.color": DIM,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.color": DIM,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8.5,
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
    "svg.hashsalt": "jaxnets",  # the same figure is the same text
}
_FONT = "system-ui, sans-serif"
_lock = threading.Lock()  # matplotlib's settings are those of the process


@contextmanager
def style() -> "Iterator[None]":
    """Whatever is made within has the style: `new_figure` and what is written have it by themselves."""
    import matplotlib

    with matplotlib.rc_context({**_STYLE, "axes.prop_cycle": _cycle()}):
        yield


def new_figure(width: float = WIDTH, height: float = HEIGHT) -> "Figure":
    """Returns an empty figure, in inches; what axes it gets have the style.

    Its text has 9 points: at a width of 4.6 inches it can be read on a phone, where wider figures shrink.
    """
    return _styled()(figsize=(width, height), layout="constrained")


def svg(figure: "Figure", described: str = "") -> str:
    """Returns a figure as an element for a page: as wide as there is room, its ink in the page's colour.

    `described` says what it shows, for those who hear the page.
    """
    text = _saved(figure, "svg", facecolor="none", metadata={"Date": None, "Creator": None}).decode()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    # Names that every figure has would be there twice on a page; those that matplotlib refers to hold a checksum.
    text = re.sub(r' id="(?:figure|axes|patch|line2d|text|matplotlib\.axis|xtick|ytick|legend)_\d+"', "", text)
    text = re.sub(r"(font: (?:[a-z0-9]+ )*[\d.]+px )[^;\"]*", rf"\1{_FONT}", text)
    text = text.replace(INK, "currentColor").replace(LINE, f"var(--line, {LINE})")
    width, height = (96 * side for side in figure.get_size_inches())
    head = (
        f'<svg class="figure" role="img" aria-label="{escape(described)}" style="width:100%;max-width:{width:.0f}px;'
        f'height:auto" viewBox="0 0 {0.75 * width:g} {0.75 * height:g}" xmlns:xlink="http://www.w3.org/1999/xlink" '
        'xmlns="http://www.w3.org/2000/svg" version="1.1">'
    )
    return re.sub(r"<svg[^>]*>", lambda _: head, text, count=1)


def png(figure: "Figure", dots_per_inch: int = 160) -> bytes:
    """Returns a figure as a PNG file on white."""
    return _saved(figure, "png", dpi=dots_per_inch, facecolor="white")


def _saved(figure: "Figure", kind: str, **options: Any) -> bytes:
    from matplotlib.legend import Legend
    from matplotlib.text import Text

    buffer = io.BytesIO()
    with _lock, style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a page's font has them, where ours does not
        for text in figure.findobj(Text):
            text.set_parse_math(False)
        for legend in figure.findobj(Legend):  # a frame is filled, and hides text on a dark page
            legend.set_frame_on(False)
            for text in (*legend.get_texts(), legend.get_title()):
                text.set_color(INK)
        figure.savefig(buffer, format=kind, **options)
        figure.set_layout_engine("none")  # its parts have their places now, in a second format too
    return buffer.getvalue()


@cache
def _styled() -> "type[Figure]":
    from matplotlib.figure import Figure

    class Styled(Figure):
        """A figure whose axes have the style, whenever they are made."""

        def add_subplot(self, *args: Any, **options: Any) -> Any:
            with style():
                return super().add_subplot(*args, **options)

        def add_axes(self, *args: Any, **options: Any) -> Any:
            with style():
                return super().add_axes(*args, **options)

        def legend(self, *args: Any, **options: Any) -> Any:
            with style():
                return super().legend(*args, **options)

    return Styled


def _cycle() -> Any:
    from cycler import cycler

    return cycler(color=COLOURS)
