"""How unlike the training images an image is: two scores that are larger the stranger it is.

- Energy (Liu, Wang, Owens & Li 2020, "Energy-based out-of-distribution detection", equation 4): −T · logsumexp(z / T)
  of the logits; with several labels the sum of each label's own, −T · Σ ln(1 + exp(z / T)) (Wang et al. 2021, "Can
  multi-label classification networks know what they don't know?"). It knows what looks like the training images and is
  of no class, and misses what a network is sure about without having seen the like: noise, a blank page.
- Distance in feature space: the Mahalanobis distance of an image's profile, the means of each stage's channels, from
  those of the training images (Lee, Lee, Lee & Shin 2018, "A simple unified framework for detecting out-of-distribution
  samples and adversarial attacks", section 2.2: features of all layers, since the last ones keep of a strange image
  only what classes are told apart by). It is of one Gaussian for all classes, whose covariance is of low rank and the
  rest the same in all directions (probabilistic principal components; Tipping & Bishop 1999, equations 7 and 8): its
  inverse exists however few images there are, and it is small on disk.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32

MOST_SEEN = 2000  # training images that a spread is taken from
_RANK = 32
_LEAST = 1e-3  # of the mean variance of a channel that the directions beyond the rank have at least

Activation = Literal["softmax", "sigmoid"]


def energy(
    logits: Float[np.ndarray, "n classes"], activation: Activation = "softmax", temperature: float | None = None
) -> Float[np.ndarray, " n"]:
    """Returns the energy of each image, float64; the logits have not been divided by the temperature."""
    t = temperature or 1.0
    z = logits.astype(np.float64) / t
    if activation == "sigmoid":
        return -t * np.logaddexp(0, z).sum(1)
    peak = z.max(1)
    return -t * (peak + np.log(np.exp(z - peak[:, None]).sum(1)))


@dataclass(frozen=True, repr=False, eq=False)
class Spread:
    """How the profiles of training images are spread: a Gaussian, its arrays float32."""

    mean: Float32[np.ndarray, " f"]
    scale: Float32[np.ndarray, " f"]  # standard deviation of each channel
    directions: Float32[np.ndarray, "r f"]  # principal, of channels divided by their scale; of length 1
    variances: Float32[np.ndarray, " r"]  # along them
    rest: float  # variance along every other direction

    @classmethod
    def of(cls, profiles: Float[np.ndarray, "m f"]) -> "Spread":
        """Returns the spread of training images' profiles, at least two."""
        wide = profiles.astype(np.float64)
        mean, scale = wide.mean(0), wide.std(0)
        # A channel that no training image moves: what moves it is measured as in the usual channel.
        alive = scale > 1e-6 * max(scale.max(), 1e-30)
        scale = np.where(alive, scale, np.median(scale[alive]) if alive.any() else 1.0)
        x = (wide - mean) / scale
        m, f = x.shape
        # The smaller of the two Gram matrices has the same eigenvalues.
        values, vectors = np.linalg.eigh(x @ x.T if m < f else x.T @ x)
        variances = np.maximum(values[::-1], 0) / max(m - 1, 1)
        rank = max(min(_RANK, f - 1, (variances > _LEAST).sum()), 1)
        found = vectors[:, ::-1][:, :rank]
        directions = (x.T @ found if m < f else found).T
        directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-30)
        rest = max(float(variances[rank:].sum()) / max(f - rank, 1), _LEAST)
        arrays = (mean, scale, directions, np.maximum(variances[:rank], rest))
        mean, scale, directions, along = (np.ascontiguousarray(array, np.float32) for array in arrays)
        return cls(mean, scale, directions, along, rest)

    def distances(self, profiles: Float[np.ndarray, "n f"]) -> Float32[np.ndarray, " n"]:
        """Returns the distance of each image from the training images: about 1 for one of them."""
        x = (np.asarray(profiles, np.float32) - self.mean) / self.scale
        along = x @ self.directions.T
        across = x - along @ self.directions
        squared = (along**2 / self.variances).sum(1) + (across**2).sum(1) / np.float32(self.rest)
        return np.sqrt(squared / np.float32(len(self.mean)))

    def to_bytes(self, bound: float) -> bytes:
        """Returns what a file of it holds: safetensors, with the `bound` of the distance that was chosen with it."""
        from safetensors.numpy import save

        numbers = np.array([self.rest, bound], np.float64)
        return save(
            {
                "mean": self.mean,
                "scale": self.scale,
                "directions": self.directions,
                "variances": self.variances,
                "rest_and_bound": numbers,
            }
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> tuple["Spread", float]:
        """Returns it from a file, and the bound.

        Raises:
            ValueError: if it is no such file.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            found = load(content)
            mean, scale, directions, variances = (
                found[name].astype(np.float32) for name in ("mean", "scale", "directions", "variances")
            )
            rest, bound = found["rest_and_bound"].astype(np.float64).tolist()
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        shapes = [array.shape for array in (mean, scale, directions, variances)]
        r, f = directions.shape if directions.ndim == 2 else (0, 0)
        if shapes != [(f,), (f,), (r, f), (r,)] or not min(scale.min(), variances.min(), rest) > 0:
            raise ValueError(f"its arrays are {shapes}, or their deviations are not above 0")
        return cls(mean, scale, directions, variances, rest), bound
