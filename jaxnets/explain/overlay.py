"""A map laid over its image, in colours that people with any colour vision tell apart."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

# From dark blue over grey to yellow, each lighter than the one before: it reads without hue, and in print.
_COLOURS = np.array([(0, 32, 77), (49, 68, 107), (102, 105, 112), (149, 143, 120), (203, 185, 104), (255, 234, 70)])
_STRONGEST = 0.75  # share of the colour where the map is 1
_CAPTION = 28  # pixels


def overlay(image: UInt8[np.ndarray, "h w 3"], heat: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the image in grey under the map, which is 0…1: the higher, the lighter and the more opaque."""
    grey = np.repeat(image.mean(-1, keepdims=True), 3, -1)
    at = heat.clip(0, 1) * (len(_COLOURS) - 1)
    colour = np.stack([np.interp(at, np.arange(len(_COLOURS)), _COLOURS[:, c]) for c in range(3)], -1)
    share = (_STRONGEST * heat.clip(0, 1) ** 0.5)[..., None]
    return (grey * (1 - share) + colour * share).round().astype(np.uint8)


def sheet(image: UInt8[np.ndarray, "h w 3"], drawn: Sequence[tuple[Float[np.ndarray, "h w"], str]]) -> Image.Image:
    """Returns the image and its overlay side by side under a caption, for each map and caption below the last."""
    height, width = image.shape[:2]
    page = Image.new("RGB", (2 * width, len(drawn) * (height + _CAPTION)), "white")
    for number, (heat, caption) in enumerate(drawn):
        top = number * (height + _CAPTION)
        page.paste(Image.fromarray(image), (0, top + _CAPTION))
        page.paste(Image.fromarray(overlay(image, heat)), (width, top + _CAPTION))
        ImageDraw.Draw(page).text((6, top + 6), caption, fill="black", font=ImageFont.load_default(size=15))
    return page
