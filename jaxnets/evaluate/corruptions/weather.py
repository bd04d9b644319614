"""Weather. Images are float64 `[h, w, c]`, 0 … 1, grey or RGB, and so is what is returned, before it is clipped."""

import cv2
import numpy as np
from jaxtyping import Float64

from jaxnets.evaluate.corruptions.blur import blur_along
from jaxnets.evaluate.corruptions.linear import gaussian, zoomed

Image = Float64[np.ndarray, "h w c"]
_LUMA = np.array([0.299, 0.587, 0.114])
_WATER, _MUD = np.array([175, 238, 238]) / 255, np.array([63, 42, 20]) / 255


def luma(image: Image) -> Float64[np.ndarray, "h w 1"]:
    """Returns the brightness of an image, which a grey one is."""
    return image if image.shape[2] == 1 else (image @ _LUMA)[..., None]


def snow(
    image: Image,
    random: np.random.Generator,
    mean: float,
    deviation: float,
    size: float,
    threshold: float,
    radius: int,
    sigma: float,
    share: float,
) -> Image:
    """Lets it snow: normal noise, enlarged and cut off below, is blown along a line and added, once upside down too.

    The image is whitened: `share` of it and the rest of the brighter of it and its brightness × 1.5 + 0.5.
    """
    flakes = zoomed(random.normal(size=image.shape[:2], loc=mean, scale=deviation), size)
    flakes = np.where(flakes < threshold, 0, np.clip(flakes, 0, 1))
    flakes = np.floor(flakes * 255)  # 8 bits, as the authors' library takes and gives
    flakes = np.round(blur_along(flakes, radius, sigma, random.uniform(-135, -45))) / 255
    whitened = share * image + (1 - share) * np.maximum(image, luma(image) * 1.5 + 0.5)
    return whitened + (flakes + flakes[::-1, ::-1])[..., None]


def frost(image: Image, random: np.random.Generator, share: float, frost_share: float) -> Image:
    """Covers with frost, as a window: `share` of the image and `frost_share` of the frost.

    The authors lay a crop of one of five photographs over it. The frost here is drawn (`ice`), about as bright, as blue
    and as uneven as those, so that errors are like theirs and not the same.
    """
    height, width, channels = image.shape
    return share * image + frost_share * ice(random, height, width, channels)


def ice(random: np.random.Generator, height: int, width: int, channels: int) -> Image:
    """Returns ice on a window, 0 … 1: crystals of one brightness, unevenness and tint, which are drawn.

    Of crops of the photographs the mean is 114 to 204 of 255 and the standard deviation 38 to 14, the brighter the more
    even; red lies 10 to 50 below and blue 10 to 35 above green.
    """
    level, tint = random.uniform(105, 215), random.uniform(0, 1)
    deviation = random.uniform(0.6, 1.05) * (38 - 0.16 * (level - 114))
    grey = level + deviation * crystals(random, height, width)
    colour = np.array([-40, 7, 33]) * tint
    rgb = np.clip(grey[..., None] + colour, 0, 255) / 255
    return rgb if channels == 3 else luma(rgb)


def crystals(random: np.random.Generator, height: int, width: int) -> Float64[np.ndarray, "h w"]:
    """Returns bright and dark needles in six directions that are 60 degrees apart, over haze; mean 0, deviation 1."""
    side = max(height, width)
    reach = max(side // 12, 2)
    tall, wide = height + 4 * reach, width + 4 * reach  # what grows in from beyond the border is cut off
    first = random.uniform(0, 60)
    needles = np.zeros((tall, wide))
    for turn in range(6):
        seeds = random.normal(size=(tall, wide)) * (random.random((tall, wide)) < 0.05)
        needles += blur_along(seeds, reach, reach / 2, first + 60 * turn)
    needles = gaussian(needles, 0.35 + 0.002 * side)[2 * reach : -2 * reach, 2 * reach : -2 * reach]
    haze = plasma(random, max(1 << (side - 1).bit_length(), 2), 1.7)[:height, :width]
    return _standard(_standard(np.arctan(_standard(needles))) + 0.5 * _standard(haze))


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / (values.std() or 1)


def fog(image: Image, random: np.random.Generator, thickness: float, decay: float) -> Image:
    """Adds fog of uneven `thickness` (`plasma`), and darkens so that what was brightest stays as bright."""
    height, width, _ = image.shape
    size = max(1 << (max(height, width) - 1).bit_length(), 2)
    brightest = image.max()
    foggy = image + thickness * plasma(random, size, decay)[:height, :width, None]
    return foggy * brightest / (brightest + thickness)


def plasma(random: np.random.Generator, size: int, decay: float) -> Float64[np.ndarray, "s s"]:
    """Returns a cloud, 0 … 1, of a power of two pixels each way, by the diamond-square algorithm on a torus.

    A grid is made twice as fine again and again: each new place is the mean of its four neighbours and a uniform
    number, whose range begins at ±10⁴ and becomes `decay`² times smaller each time.
    """
    grid, wobble = np.zeros((1, 1)), 100.0

    def near(sum_of_four: np.ndarray) -> np.ndarray:
        return sum_of_four / 4 + wobble * random.uniform(-wobble, wobble, sum_of_four.shape)

    while len(grid) < size:
        right, below = np.roll(grid, -1, 1), np.roll(grid, -1, 0)
        middle = near(grid + right + below + np.roll(right, -1, 0))
        finer = np.empty((2 * len(grid), 2 * len(grid)))
        finer[::2, ::2], finer[1::2, 1::2] = grid, middle
        finer[::2, 1::2] = near(grid + right + middle + np.roll(middle, 1, 0))
        finer[1::2, ::2] = near(grid + below + middle + np.roll(middle, 1, 1))
        grid, wobble = finer, wobble / decay
    lowered = grid - grid.min()
    return lowered / lowered.max()


def spatter(
    image: Image,
    random: np.random.Generator,
    mean: float,
    deviation: float,
    size: float,
    threshold: float,
    strength: float,
    mud: bool,
) -> Image:
    """Spatters a lens with drops of water, which are brighter towards their edges, or with mud, which covers.

    The few drops that are brighter than white are white here, where the authors' 8 bits overflow and they are black.
    """
    drops = gaussian(random.normal(size=image.shape[:2], loc=mean, scale=deviation), size)
    drops = np.where(drops < threshold, 0, drops)
    channels = image.shape[2]
    if mud:
        cover = gaussian((drops > threshold).astype(np.float64), strength)
        cover = np.where(cover < 0.8, 0, cover)
        return image * (1 - cover[..., None]) + _in_channels(cover, _MUD, channels)
    levels = np.floor(np.clip(drops, 0, 1) * 255).astype(np.uint8)
    shine = levels * _relief(levels).astype(np.float64)
    if not shine.max():  # no drop fell
        return image
    return image + _in_channels(strength * shine / shine.max(), _WATER, channels)


def _relief(drops: np.ndarray) -> np.ndarray:
    """Returns a lit relief of drops, uint8: the distance from their edges, cut at 20 pixels, seen from one side."""
    distance = cv2.distanceTransform(255 - cv2.Canny(drops, 50, 150), cv2.DIST_L2, 5)
    height = cv2.equalizeHist(cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8))
    lit = cv2.filter2D(height, cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
    return cv2.blur(lit, (3, 3))


def _in_channels(layer: Float64[np.ndarray, "h w"], colour: np.ndarray, channels: int) -> Image:
    """Returns a layer in a colour, for a grey image in the colour's brightness."""
    return layer[..., None] * (colour if channels == 3 else np.array([colour @ _LUMA]))
