"""Maps laid over their image, in colours that people with any colour vision tell apart, each with its scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

# From dark blue over grey to yellow, each lighter than the one before: it reads without hue, and in print.
_FOR = np.array([(0, 32, 77), (49, 68, 107), (102, 105, 112), (149, 143, 120), (203, 185, 104), (255, 234, 70)])
# Where maps have two sides: what speaks for a class from brown to yellow, what speaks against it in blue.
_SIDES = np.array(
    [
        (20, 60, 255),
        (60, 110, 235),
        (110, 140, 190),
        (128, 128, 128),
        (190, 140, 70),
        (240, 160, 30),
        (255, 220, 60),
    ]
)
_STRONGEST = 0.75  # share of the colour where the map is 1
_SMOOTH = 0.012  # of the longer side: the deviation by which maps of single pixels are smoothed, to be seen at all
_LEAST, _MOST = 288, 768  # pixels of an image's longer side on a sheet
_GAP, _CAPTION, _BAR, _SCALE = 8, 22, 10, 30
_INK, _DIM = (27, 31, 36), (92, 102, 112)


@dataclass(frozen=True)
class Panel:
    """A map on a sheet."""

    heat: Float[np.ndarray, "h w"]  # 0…1, or where it has two sides −1…1
    caption: tuple[str, ...]  # lines above it
    peak: float = 1.0  # what 1 stands for
    unit: str = ""  # of that; none: it has no meaning of its own
    signed: bool = False
    fine: bool = False  # smoothed to be drawn
    by_pixels: bool = False  # it knows each pixel of the image, and is enlarged as the image is


def overlay(
    image: UInt8[np.ndarray, "h w 3"], heat: Float[np.ndarray, "h w"], *, signed: bool = False
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the image in grey under the map: the further from 0, the more opaque; what is above 0 is lighter."""
    grey = np.repeat(image.mean(-1, keepdims=True), 3, -1)
    share = (_STRONGEST * np.abs(heat).clip(0, 1) ** 0.5)[..., None]
    return (grey * (1 - share) + _colour(heat, signed=signed) * share).round().astype(np.uint8)


def drawable(heat: Float[np.ndarray, "h w"]) -> tuple[Float[np.ndarray, "h w"], float]:
    """Returns a fine map as it is drawn, and by what it was divided for its peak to be 1 again.

    It is smoothed, for its grains are too small to be seen; and cut where one pixel in a hundred reaches further, as
    Smilkov et al. 2017 do, for a few would else be all that is seen.
    """
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(heat, _SMOOTH * max(heat.shape))
    top = float(np.quantile(np.abs(smooth), 0.99))
    return (smooth / top).clip(-1, 1) if top > 0 else smooth, top


def sheet(
    image: UInt8[np.ndarray, "h w 3"], panels: Sequence[Panel], seen: tuple[int, int, int, int] | None = None
) -> Image.Image:
    """Returns the image and beside it its overlays, in rows of up to four, each with its caption and its scale.

    Small images are enlarged without smoothing, for their pixels to be seen; large ones are brought down. A frame is
    drawn around what the model sees, where that is not all: `seen` as `Preprocess.region` returns it.
    """
    height, width = _shown(*image.shape[:2])
    lines = max([len(panel.caption) for panel in panels] + [1])
    cell_width, cell_height = max(width, _LEAST), lines * _CAPTION + height + _SCALE
    columns = min(len(panels) + 1, 4 if len(panels) != 4 else 3)
    rows = -(-(len(panels) + 1) // columns)
    top = _GAP
    page = Image.new("RGB", (columns * (cell_width + _GAP) + _GAP, top + rows * (cell_height + _GAP) + _GAP), "white")
    draw = ImageDraw.Draw(page)
    frame = _frame(seen, image.shape[:2], (height, width))
    enlarged = height > image.shape[0]
    resampling = Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX
    shown = np.asarray(Image.fromarray(image).resize((width, height), resampling))
    for number in range(len(panels) + 1):
        left = _GAP + number % columns * (cell_width + _GAP)
        upper = top + number // columns * (cell_height + _GAP)
        at = left, upper + lines * _CAPTION
        if number == 0:
            _write(draw, (left, at[1] - _CAPTION), "the image", cell_width, ink=_DIM)
            _paste(page, shown, at, frame)
            continue
        panel = panels[number - 1]
        for line, text in enumerate(panel.caption):
            ink = _DIM if line else _INK
            _write(draw, (left, at[1] - (len(panel.caption) - line) * _CAPTION), text, cell_width, ink=ink)
        heat, peak = drawable(panel.heat) if panel.fine else (panel.heat, 1.0)
        whole = Image.fromarray(heat.astype(np.float32))
        of_pixels = enlarged and panel.by_pixels
        heat = np.asarray(whole.resize((width, height), resampling if of_pixels else Image.Resampling.BICUBIC))
        _paste(page, overlay(shown, heat, signed=panel.signed), at, frame)
        _draw_scale(page, draw, (left, at[1] + height + 4), width if width >= 200 else cell_width, panel, peak)
    return page


def _frame(
    seen: tuple[int, int, int, int] | None, sides: tuple[int, ...], shown: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """Returns left, top, right and bottom of what the model sees, in pixels of the sheet; None where that is all."""
    if seen is None or (seen[0] <= 0 and seen[1] <= 0 and seen[2] >= sides[0] and seen[3] >= sides[1]):
        return None
    down, across = shown[0] / sides[0], shown[1] / sides[1]
    top, left, bottom, right = (max(edge, 0) for edge in seen)
    return (
        round(left * across),
        round(top * down),
        min(round(right * across), shown[1]) - 1,
        min(round(bottom * down), shown[0]) - 1,
    )


def _paste(
    page: Image.Image,
    drawn: UInt8[np.ndarray, "h w 3"],
    at: tuple[int, int],
    frame: tuple[int, int, int, int] | None,
) -> None:
    cell = Image.fromarray(drawn)
    if frame is not None:
        left, top, right, bottom = frame
        lines = ImageDraw.Draw(cell)
        lines.rectangle(frame, outline="black")
        lines.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline="white")
    page.paste(cell, at)


def _draw_scale(
    page: Image.Image, draw: ImageDraw.ImageDraw, at: tuple[int, int], width: int, panel: Panel, peak: float
) -> None:
    """Draws the colours from the least to the most, and what they stand for."""
    left, top = at
    values = np.linspace(-1 if panel.signed else 0, 1, width)
    bar = overlay(np.full((_BAR, width, 3), 128, np.uint8), np.tile(values, (_BAR, 1)), signed=panel.signed)
    page.paste(Image.fromarray(bar), at)
    below = top + _BAR
    most = f"{peak * panel.peak:.2g}" if panel.unit else "most"
    # The font has no true minus.
    left_text, right_text = ("0", most) if not panel.signed else (f"-{most}", f"+{most}")
    middle = panel.unit if not panel.signed else f"against  0  for  ({panel.unit})"
    for text, x, anchor in (
        (left_text, left, "la"),
        (middle, left + width // 2, "ma"),
        (right_text, left + width, "ra"),
    ):
        draw.text((x, below), text, fill=_DIM, font=_font(12), anchor=anchor)


def _shown(height: int, width: int) -> tuple[int, int]:
    """Returns the sides of an image on a sheet: a whole multiple of them, or less."""
    longer = max(height, width)
    scale = max(_LEAST // longer, 1) if longer < _LEAST else min(_MOST / longer, 1)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def _colour(heat: Float[np.ndarray, "h w"], *, signed: bool) -> Float[np.ndarray, "h w 3"]:
    table = _SIDES if signed else _FOR
    share = (heat.clip(-1, 1) + 1) / 2 if signed else heat.clip(0, 1)
    at = share * (len(table) - 1)
    return np.stack([np.interp(at, np.arange(len(table)), table[:, c]) for c in range(3)], -1)


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    width: int,
    *,
    size: int = 15,
    ink: tuple[int, ...] = _INK,
) -> None:
    """Writes one line, as far as there is room."""
    font = _font(size)
    if font.getlength(text) > width:
        while text and font.getlength(text + "…") > width:
            text = text[:-1]
        text += "…"
    draw.text(at, text, fill=ink, font=font)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
