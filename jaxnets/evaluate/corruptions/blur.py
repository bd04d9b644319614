"""Blur. Images are float64 `[h, w, c]`, 0 … 1, and so is what is returned."""

import math

import cv2
import numpy as np
from jaxtyping import Float64, Int64

from jaxnets.evaluate.corruptions.linear import gaussian, zoomed

Image = Float64[np.ndarray, "h w c"]


def gaussian_blur(image: Image, random: np.random.Generator, sigma: float) -> Image:
    """Blurs by a Gaussian of `sigma` pixels."""
    return gaussian(image, sigma)


def glass_blur(image: Image, random: np.random.Generator, sigma: float, reach: int, times: int) -> Image:
    """Looks through frosted glass: pixels are moved about within `reach`, some times over, between two blurs.

    The authors mean to swap two pixels, and overwrite one with the other, since NumPy's rows are views; the published
    data was made so, and so it is here.
    """
    shuffled = np.floor(gaussian(image, sigma) * 255).astype(np.uint8)
    for _ in range(times):
        shuffled = _copy_neighbours(shuffled, random, reach)
    return gaussian(shuffled / 255, sigma)


def _copy_neighbours(image: np.ndarray, random: np.random.Generator, reach: int) -> np.ndarray:
    """Gives each pixel the value of one near it, from the last pixel to the first, each after those it follows.

    A pixel takes what its neighbour is by then: the neighbour's own value if its turn is still to come, else what it
    was given. So each has a chain of neighbours that ends at an old value, and all chains are followed at once.
    """
    height, width = image.shape[:2]
    rows = np.arange(height - reach, reach, -1)
    columns = np.arange(width - reach, reach, -1)
    if not len(rows) or not len(columns):
        return image
    # Across and down for each, in the order of the turns.
    moves = random.integers(-reach, reach, size=(len(rows), len(columns), 2))
    taken_row = rows[:, None] + moves[..., 1]
    taken_column = columns[None, :] + moves[..., 0]
    own = (rows[:, None] * width + columns[None, :]).ravel()
    taken = (taken_row * width + taken_column).ravel()
    has_turn = np.zeros(height * width, bool)
    has_turn[own] = True
    # Turns go from large numbers to small ones: what is taken is new if it has a turn and a larger number.
    pixels = height * width
    follow: Int64[np.ndarray, " twice"] = np.arange(2 * pixels)  # the first half: old values; the second: new ones
    follow[pixels + own] = np.where(has_turn[taken] & (taken > own), pixels + taken, taken)
    while (follow[own + pixels] >= pixels).any():
        follow = follow[follow]
    source = np.arange(pixels)
    source[own] = follow[pixels + own]
    return image.reshape(pixels, -1)[source].reshape(image.shape)


def defocus_blur(image: Image, random: np.random.Generator, radius: float, edge: float) -> Image:
    """Blurs by a disc of `radius` pixels, whose edge is smoothed by a Gaussian of `edge`, as a lens out of focus."""
    reach = 8 if radius <= 8 else int(radius)
    x, y = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1))
    disc = (x**2 + y**2 <= radius**2).astype(np.float32)
    size = 3 if radius <= 8 else 5
    disc = cv2.GaussianBlur(disc / disc.sum(), (size, size), edge)
    return cv2.filter2D(image, -1, disc).reshape(image.shape)


def motion_blur(image: Image, random: np.random.Generator, radius: int, sigma: float) -> Image:
    """Blurs along a line up to 45 degrees from the horizontal, as a camera that moves; rounded to 8 bits."""
    moved = blur_along(image * 255, radius, sigma, random.uniform(-45, 45))
    return np.clip(np.round(moved), 0, 255) / 255


def blur_along(image: Image, radius: int, sigma: float, angle: float) -> Image:
    """Returns Σ kᵢ · image(place + offsetᵢ), as ImageMagick's motion blur.

    The weights are half of a Gaussian of `sigma`, at 2 · radius + 1 places one pixel apart from here on, in the
    direction of `angle` degrees, each rounded to a pixel. Beyond the border there is what is at the border.
    """
    places = np.arange(2 * radius + 1)
    weights = np.exp(-(places**2) / (2 * sigma**2))
    weights /= weights.sum()
    down = np.ceil(places * math.sin(math.radians(angle)) - 0.5).astype(int)
    across = np.ceil(places * math.cos(math.radians(angle)) - 0.5).astype(int)
    kernel = np.zeros((4 * radius + 1, 4 * radius + 1))
    np.add.at(kernel, (2 * radius + down, 2 * radius + across), weights)
    return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE).reshape(image.shape)


def zoom_blur(image: Image, random: np.random.Generator, end: float, step: float) -> Image:
    """Returns the mean of the image and of it enlarged by 1, 1 + step, … below `end`, as a camera that comes nearer."""
    factors = np.arange(1, end, step)
    return (image + sum(zoomed(image, factor) for factor in factors)) / (len(factors) + 1)
