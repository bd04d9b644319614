"""Noise. Images are float64 `[h, w, c]`, 0 … 1, and so is what is returned, before it is clipped."""

import numpy as np
from jaxtyping import Float64

Image = Float64[np.ndarray, "h w c"]


def gaussian_noise(image: Image, random: np.random.Generator, sigma: float) -> Image:
    """Adds to each channel of each pixel normal noise of deviation `sigma`, as a sensor in low light."""
    return image + random.normal(size=image.shape, scale=sigma)


def shot_noise(image: Image, random: np.random.Generator, photons: float) -> Image:
    """Counts photons: each value becomes a Poisson number of mean value × `photons`, over `photons`."""
    return random.poisson(image * photons) / photons


def impulse_noise(image: Image, random: np.random.Generator, share: float) -> Image:
    """Sets a share of all values to 0 or 1 ("salt and pepper"), as bit errors do.

    Drawn as skimage's `random_noise(mode="s&p")`: first which, then to what.
    """
    hit = random.random(image.shape) <= share
    white = random.random(image.shape) <= 0.5
    return np.where(hit, white.astype(image.dtype), image)


def speckle_noise(image: Image, random: np.random.Generator, sigma: float) -> Image:
    """Adds normal noise in proportion to the value."""
    return image + image * random.normal(size=image.shape, scale=sigma)
