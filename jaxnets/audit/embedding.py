"""The embedding that labels are judged by: a model's pooled features."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from jaxnets.classifier import Classifier
from jaxnets.loading import load

DEFAULT = "efficientnet_lite0"


@dataclass(frozen=True)
class ModelEmbedding:
    """The vectors that the head of a classifier sees."""

    classifier: Classifier

    @property
    def name(self) -> str:
        return self.classifier.name

    def fit(self, image: UInt8[np.ndarray, "h w c"], original: tuple[int, int]) -> UInt8[np.ndarray, "s t c"]:
        """Brings an image to the model's size, in the geometry that it had before it was squeezed."""
        return self.classifier.preprocess.fit(image, original)

    def embed(self, images: UInt8[np.ndarray, "b s t c"]) -> Float32[np.ndarray, "b f"]:
        """Returns a vector for each image."""
        return self.classifier.embed_fitted(images)


def open_embedding(model: str) -> ModelEmbedding:
    """Opens whatever names a model (`jaxnets.load`).

    Raises:
        UserError: if it cannot be read.
    """
    return ModelEmbedding(load(model, engine="jax"))
