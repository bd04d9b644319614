"""Antialiased resizing of training images: a quick one, and Pillow's where that will not do."""

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

MOST = 2.0  # pixels of a side that become one, up to which three taps are enough

# A batch is made by as many threads as there are cores: a pool of OpenCV's own for each image would only disturb them.
cv2.setNumThreads(1)


def squeeze_into(out: UInt8[np.ndarray, "height width c"], image: UInt8[np.ndarray, "h w c"]) -> None:
    """Resizes an image, of at most `MOST` times the sides of `out`, and writes it there; c is 1 or 3.

    A triangle as wide as s ≥ 1 pixels, as Pillow's bilinear filter shrinks a side by s with, has the variance s² / 6.
    OpenCV's interpolation has that of 1 / 6 whatever the s, so three taps go before it that have the rest,
    (s² − 1) / 6. On photographs of 400 × 375 pixels squeezed to 280 × 280 the result is 0.45 grey levels from Pillow's
    on average, and 2.8 at the 99th percentile; without the taps it would be 1.0 and 7.3.
    """
    height, width, channels = out.shape
    tall, wide = image.shape[:2]
    if tall > height or wide > width:
        across, down = _taps(wide / width), _taps(tall / height)
        image = cv2.sepFilter2D(image, -1, across, down, borderType=cv2.BORDER_REPLICATE)
    target = out if channels > 1 else out[..., 0]
    resized = cv2.resize(image, (width, height), dst=target, interpolation=cv2.INTER_LINEAR)
    if resized is not target:  # of an array that OpenCV cannot write to
        target[...] = resized


def resize_into(
    out: UInt8[np.ndarray, "height width c"], image: UInt8[np.ndarray, "h w c"], rows: float, columns: float
) -> None:
    """Resizes the first `rows` and `columns`, whole or not, of an image by Pillow's bilinear filter; c is 1 or 3.

    Of an image that was decoded at a part of its size the last pixels may stand for less than the others. Photographs
    that were decoded at 1/2 or 1/4 come out 0.8 to 1.0 grey levels from what the whole image gives, on average, and 5
    to 6 at the 99th percentile; at 1/8, 1.2 and 7. Pillow's box and bilinear filters are 2.0 and 12 apart.
    """
    height, width, channels = out.shape
    resizing = Image.fromarray(image if channels > 1 else image[..., 0])
    # The side that shrinks most comes first, as a long thin image would fill the memory otherwise.
    across_first = columns / width >= rows / height
    for across in (across_first, not across_first):
        size = (width, resizing.height) if across else (resizing.width, height)
        box = (0, 0, columns, resizing.height) if across else (0, 0, resizing.width, rows)
        resizing = resizing.resize(size, Image.Resampling.BILINEAR, box=box)
    out[...] = np.asarray(resizing).reshape(out.shape)


def _taps(scale: float) -> Float32[np.ndarray, " taps"]:
    if scale <= 1:
        return np.ones(1, np.float32)
    side = (scale * scale - 1) / 12
    return np.array([side, 1 - 2 * side, side], np.float32)
