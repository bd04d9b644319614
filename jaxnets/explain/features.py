"""Sheets of what a network is made of and what it finds: the filters that see the image, a stage's feature maps."""

import math
from typing import Any

import numpy as np
from flax import linen as nn
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from jaxnets.errors import UserError, nearest
from jaxnets.models.family import Variables
from jaxnets.models.registry import family_of

_FILTER, _MAP = 48, 96  # pixels of each on a sheet, about
_MOST = 144  # on a sheet
_GAP, _TITLE = 4, 30
_VIRIDIS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)])


def first_filters(model: nn.Module, variables: Variables) -> Float[np.ndarray, "i j c f"]:
    """Returns the kernel of the layer that sees the image."""
    layer: Any = variables["params"][family_of(model).structure(model).stem[0]]
    return np.asarray(layer["kernel"], np.float32)


def filter_sheet(kernel: Float[np.ndarray, "i j c f"]) -> Image.Image:
    """Returns the first layer's filters in rows: in colours where they see RGB, in grey where they see grey.

    Each is scaled by its own largest weight, and grey is 0. A filter of a single pixel is its colour.
    """
    rows, columns, channels, count = kernel.shape
    if channels not in (1, 3):
        raise UserError(f"filters of images have 1 or 3 channels, found {channels}")
    largest = np.abs(kernel).max((0, 1, 2), keepdims=True)
    scaled = 127.5 * (1 + kernel / np.where(largest > 0, largest, 1))
    times = max(_FILTER // max(rows, columns), 1)
    cells = [np.kron(scaled[..., f], np.ones((times, times, 1))) for f in range(min(count, _MOST))]
    shown = "" if count <= _MOST else f", the first {_MOST} of them"
    title = f"{count} filters of {rows} x {columns} pixels{shown}; grey is 0, each by its own largest weight"
    return _grid([np.broadcast_to(cell, (*cell.shape[:2], 3)).round().astype(np.uint8) for cell in cells], title)


def find_features(
    found: dict[str, Float[np.ndarray, "1 r c k"]], stage: str | None
) -> tuple[str, Float[np.ndarray, "r c k"]]:
    """Returns the name and the features of a stage of one image; of the first stage without a name.

    Raises:
        UserError: for one that there is not.
    """
    names = list(found)
    if stage is None:
        stage = next((name for name in names if name.startswith("stage")), names[0])
    if stage not in found:
        raise UserError(f"there is no stage {stage!r}{nearest(stage, names)}; the model has {', '.join(names)}")
    return stage, np.asarray(found[stage][0], np.float32)


def feature_sheet(features: Float[np.ndarray, "r c k"], stage: str) -> Image.Image:
    """Returns a stage's feature maps of one image, those that vary most first, each between its least and its most."""
    rows, columns, count = features.shape
    spread = features.std((0, 1))
    order = np.argsort(-spread, kind="stable")[:_MOST]
    times = max(round(_MAP / max(rows, columns)), 1)
    cells = []
    for k in order.tolist():
        plane = features[..., k]
        low, high = plane.min(), plane.max()
        at = (plane - low) / (high - low if high > low else 1) * (len(_VIRIDIS) - 1)
        colour = np.stack([np.interp(at, np.arange(len(_VIRIDIS)), _VIRIDIS[:, c]) for c in range(3)], -1)
        cells.append(np.kron(colour, np.ones((times, times, 1))).round().astype(np.uint8))
    shown = "" if count <= _MOST else f", the {_MOST} that vary most"
    flat = int((spread == 0).sum())
    title = f"{stage}: {count} maps of {rows} x {columns}{shown}; yellow is each one's own most"
    return _grid(cells, title + (f"; {flat} are the same everywhere" if flat else ""))


def _grid(cells: list[UInt8[np.ndarray, "h w 3"]], title: str) -> Image.Image:
    height, width = cells[0].shape[:2]
    # About twice as wide as tall, and never so narrow that the title does not fit.
    columns = max(1, min(len(cells), round(math.sqrt(2 * len(cells) * height / width))))
    rows = -(-len(cells) // columns)
    font = ImageFont.load_default(size=15)
    page_width = max(columns * (width + _GAP) + _GAP, round(font.getlength(title)) + 4 * _GAP)
    page = Image.new("RGB", (page_width, _TITLE + rows * (height + _GAP) + _GAP), "white")
    ImageDraw.Draw(page).text((_GAP, 6), title, fill=(27, 31, 36), font=font)
    for number, cell in enumerate(cells):
        at = _GAP + number % columns * (width + _GAP), _TITLE + number // columns * (height + _GAP)
        page.paste(Image.fromarray(cell), at)
    return page
