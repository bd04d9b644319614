"""Brightness, contrast, saturation, and what processing does. Images are float64 `[h, w, c]`, 0 … 1, grey or RGB."""

import io

import cv2
import numpy as np
from jaxtyping import Float64
from PIL import Image as PillowImage

from jaxnets.evaluate.corruptions.linear import gaussian, sampled

Image = Float64[np.ndarray, "h w c"]


def brightness(image: Image, random: np.random.Generator, more: float) -> Image:
    """Adds to the value of each pixel's colour (HSV), its largest channel, up to 1; hue and saturation stay."""
    value = image.max(2, keepdims=True)
    brighter = np.clip(value + more, 0, 1)
    return np.where(value > 0, image * (brighter / np.where(value > 0, value, 1)), brighter)


def saturate(image: Image, random: np.random.Generator, factor: float, summand: float) -> Image:
    """Makes of each pixel's saturation s (HSV) s · factor + summand, within 0 … 1; grey gets the hue of red."""
    value = image.max(2, keepdims=True)
    spread = value - image.min(2, keepdims=True)
    saturation = spread / np.where(value > 0, value, 1)
    wanted = np.clip(saturation * factor + summand, 0, 1)
    coloured = value - (value - image) * wanted / np.where(saturation > 0, saturation, 1)
    red = value * np.where(np.arange(3) == 0, 1, 1 - wanted)
    return np.where(spread > 0, coloured, red)


def contrast(image: Image, random: np.random.Generator, factor: float) -> Image:
    """Brings each channel nearer to its mean."""
    mean = image.mean((0, 1), keepdims=True)
    return (image - mean) * factor + mean


def jpeg_compression(image: Image, random: np.random.Generator, quality: int) -> Image:
    """Writes a JPEG file of so low a quality, as Pillow does, and reads it."""
    buffer = io.BytesIO()
    _to_pillow(image).save(buffer, "JPEG", quality=quality)
    return _from_pillow(PillowImage.open(buffer), image.shape)


def pixelate(image: Image, random: np.random.Generator, share: float) -> Image:
    """Makes the image smaller and large again, each by the mean of boxes."""
    height, width = image.shape[:2]
    small = _to_pillow(image).resize(
        (max(int(width * share), 1), max(int(height * share), 1)), PillowImage.Resampling.BOX
    )
    return _from_pillow(small.resize((width, height), PillowImage.Resampling.BOX), image.shape)


def elastic_transform(image: Image, random: np.random.Generator, far: float, smooth: float, corners: float) -> Image:
    """Stretches and shears a little, then moves each pixel along a smooth random field (Simard et al. 2003).

    All lengths are in shares of the shorter side: three points move by up to `corners`, the field is uniform noise up
    to ±1, blurred by `smooth` and times `far`.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    x, y, reach = width // 2, height // 2, side // 3
    corner = ((x + reach, y + reach), (x + reach, y - reach), (x - reach, y - reach))
    points = np.array(corner, np.float32)
    moved = points + random.uniform(-corners * side, corners * side, size=points.shape).astype(np.float32)
    matrix = cv2.getAffineTransform(points, moved)
    sheared = cv2.warpAffine(image.astype(np.float32), matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    sheared = sheared.reshape(image.shape)
    across, down = (_field(random, (height, width), far * side, smooth * side) for _ in range(2))
    rows, columns = np.mgrid[:height, :width]
    return sampled(sheared.astype(np.float64), rows + down, columns + across)


def _field(random: np.random.Generator, shape: tuple[int, int], far: float, smooth: float) -> np.ndarray:
    noise = random.uniform(-1, 1, size=shape)
    return (gaussian(noise, smooth, border="reflect", truncate=3) * far).astype(np.float32)


def _to_pillow(image: Image) -> PillowImage.Image:
    levels = np.round(image * 255).astype(np.uint8)
    return PillowImage.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)


def _from_pillow(image: PillowImage.Image, shape: tuple[int, ...]) -> Image:
    return np.asarray(image, np.float64).reshape(shape) / 255
