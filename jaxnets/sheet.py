"""Sheets of thumbnails: images in rows with their captions, as one image; and thumbnails as a page holds them."""

import base64
import io
from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from jaxnets.preprocess import with_channels

CELL = 160  # pixels of a thumbnail's longer side, at most
_SMALL = 80  # pixels, below which an image is enlarged to be seen
_GAP, _LINE = 8, 16
_COLUMNS = 6
_BACK, _INK, _DIM = (250, 250, 250), (20, 20, 20), (110, 110, 110)
Caption = tuple[str, ...]  # lines, the first in full ink; the last of several is a name


def thumbnail(image: UInt8[np.ndarray, "h w c"], original: tuple[int, int] | None = None) -> Image.Image:
    """Returns an image in a cell; small ones are enlarged without smoothing, for their pixels to be seen.

    One that was squeezed gets the aspect of its `original` height and width back.
    """
    small = Image.fromarray(with_channels(image, 3), "RGB")
    if original is not None:
        scale = max(small.size) / max(original)
        height, width = (max(round(side * scale), 1) for side in original)
        if (width, height) != small.size:
            small = small.resize((width, height), Image.Resampling.BILINEAR)
    if max(small.size) < _SMALL:
        times = CELL // (max(small.size) or 1)
        return small.resize((small.width * times, small.height * times), Image.Resampling.NEAREST)
    small.thumbnail((CELL, CELL), Image.Resampling.BILINEAR)
    return small


def data_uri(image: Image.Image) -> str:
    """Returns a thumbnail as a page can hold it."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=78)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def grid(cells: Sequence[tuple[Image.Image, Caption]], title: str = "", columns: int = _COLUMNS) -> Image.Image:
    """Returns images in rows, each with its caption below."""
    columns = max(1, min(columns, len(cells)))
    lines = max((len(caption) for _, caption in cells), default=0)
    wide, tall = CELL + _GAP, CELL + lines * _LINE + _GAP
    top = 34 if title else _GAP
    rows = -(-len(cells) // columns)
    page = Image.new("RGB", (max(columns * wide + _GAP, 3 * wide), top + rows * tall), _BACK)
    draw = ImageDraw.Draw(page)
    if title:
        draw.text((_GAP, 8), _fitted(title, page.width - 2 * _GAP, 16), fill=_INK, font=_font(16))
    for number, (image, caption) in enumerate(cells):
        left, upper = _GAP + number % columns * wide, top + number // columns * tall
        page.paste(image, (left + (CELL - image.width) // 2, upper + (CELL - image.height) // 2))
        for line, text in enumerate(caption):
            at = (left, upper + CELL + 2 + line * _LINE)
            fitted = _fitted(text, CELL, 11, keep_end=line == len(caption) - 1 > 0)
            draw.text(at, fitted, fill=_DIM if line else _INK, font=_font(11))
    return page


def _fitted(text: str, width: int, size: int, *, keep_end: bool = False) -> str:
    """Returns the text as far as it fits; of a name the end is kept, where paths differ."""
    font = _font(size)
    for keep in range(len(text), 0, -1):
        short = text if keep == len(text) else f"…{text[-keep:]}" if keep_end else f"{text[:keep]}…"
        if font.getlength(short) <= width:
            return short
    return ""


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
