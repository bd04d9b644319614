"""From a map of what a model sees to a map of the image that it was given."""

import numpy as np
from jaxtyping import Float
from PIL import Image

from jaxnets.preprocess import Preprocess


def to_image(
    heat: Float[np.ndarray, "rows columns"], preprocess: Preprocess, height: int, width: int
) -> Float[np.ndarray, "height width"]:
    """Returns a map brought to an image's own size, −1…1 with ±1 at its peak; 0 where the model does not look."""
    top, left, bottom, right = preprocess.region(height, width)
    peak = np.abs(heat).max()
    scaled = heat / peak if peak > 0 else heat
    seen = Image.fromarray(scaled.astype(np.float32)).resize((right - left, bottom - top), Image.Resampling.BICUBIC)
    whole = np.zeros((height, width), np.float32)
    rows, columns = slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width))
    part = np.asarray(seen)[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    whole[rows, columns] = part.clip(min(scaled.min(), 0), max(scaled.max(), 0))  # bicubic overshoots
    return whole
