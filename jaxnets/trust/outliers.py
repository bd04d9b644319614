"""How unlike the training images an image is: two scores that are larger the stranger it is.

- Energy (Liu, Wang, Owens & Li 2020, "Energy-based out-of-distribution detection", equation 4): −T · logsumexp(z / T)
  of the logits; with several labels the sum of each label's own, −T · Σ ln(1 + exp(z / T)) (Wang et al. 2021, "Can
  multi-label classification networks know what they don't know?"). It costs nothing, and misses what a network is sure
  about without having seen the like.
- Distance in feature space (Sun, Ming, Zhu & Li 2022, "Out-of-distribution detection with deep nearest neighbors"):
  from the vector that the head sees, brought to length 1, to the k-th nearest of the training images'. It supposes
  nothing of how the features are spread, where a Mahalanobis distance needs a covariance that a small data set has not
  enough images for; and a few of the training images serve about as well as all (their section 4.2), so that it is
  small on disk.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

MOST_KEPT = 2000  # training images whose vectors are kept: 2 MB of 512 features
_FURTHEST_NEIGHBOUR = 10
_ROWS = 512  # images whose distances are computed at a time


def energy(
    logits: Float[np.ndarray, "n classes"],
    activation: Literal["softmax", "sigmoid"] = "softmax",
    temperature: float | None = None,
) -> Float[np.ndarray, " n"]:
    """Returns the energy of each image, float64; the logits have not been divided by the temperature."""
    t = temperature or 1.0
    z = logits.astype(np.float64) / t
    if activation == "sigmoid":
        return -t * np.logaddexp(0, z).sum(1)
    peak = z.max(1)
    return -t * (peak + np.log(np.exp(z - peak[:, None]).sum(1)))


@dataclass(frozen=True, repr=False, eq=False)
class Neighbours:
    """Training images that a new one is compared with.

    Its vectors are what float16 keeps of them, here and on disk, so that what was chosen with them still holds.
    """

    vectors: Float[np.ndarray, "m f"]  # float32, of length 1 but for rounding
    k: int  # which of the nearest counts

    @classmethod
    def of(cls, embeddings: Float[np.ndarray, "m f"], classes: int) -> "Neighbours":
        """Returns those of training images, k-th nearest with k of about a tenth of a class and at most 10."""
        m = len(embeddings)
        k = max(1, min(_FURTHEST_NEIGHBOUR, m // (10 * max(classes, 1))))
        return cls(_of_length_one(embeddings).astype(np.float16).astype(np.float32), k)

    def distances(self, embeddings: Float[np.ndarray, "n f"]) -> Float[np.ndarray, " n"]:
        """Returns the distance of each image from its k-th nearest training image: 0 … 2."""
        found = np.empty(len(embeddings), np.float32)
        for start in range(0, len(embeddings), _ROWS):
            rows = slice(start, start + _ROWS)
            likeness = _of_length_one(embeddings[rows]) @ self.vectors.T
            nearest = np.partition(likeness, -self.k, axis=1)[:, -self.k]
            found[rows] = np.sqrt(np.maximum(2 - 2 * nearest, 0))
        return found

    def to_bytes(self, bound: float) -> bytes:
        """Returns what a file of them holds: safetensors in float16, and the `bound` that was chosen with them."""
        from safetensors.numpy import save

        return save({"vectors": self.vectors.astype(np.float16)}, {"k": str(self.k), "bound": repr(bound)})

    @classmethod
    def from_bytes(cls, content: bytes) -> tuple["Neighbours", float]:
        """Returns them from a file, and the bound.

        Raises:
            ValueError: if it is no such file.
        """
        import json
        import struct

        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            vectors = load(content)["vectors"]
            (length,) = struct.unpack("<Q", content[:8])
            about: Mapping[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
            k, bound = int(about["k"]), float(about["bound"])
        except (SafetensorError, KeyError, struct.error) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        if vectors.ndim != 2 or not 1 <= k <= len(vectors) or not np.isfinite(vectors).all():
            raise ValueError(f"k = {k} of vectors {list(vectors.shape)}")
        return cls(vectors.astype(np.float32), k), bound


def _of_length_one(vectors: Float[np.ndarray, "n f"]) -> Float[np.ndarray, "n f"]:
    wide = np.asarray(vectors, np.float32)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
