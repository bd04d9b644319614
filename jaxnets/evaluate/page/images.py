"""The images that a page shows: read anew, for predictions keep none."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxnets.audit.sheet import data_uri, thumbnail
from jaxnets.data.examples import Examples
from jaxnets.data.sources import CorruptImage
from jaxnets.data.sources.base import read_reduced
from jaxnets.evaluate.predictions import Predictions
from jaxnets.preprocess import with_channels


class Images:
    """The images of predictions, by their number there."""

    def __init__(self, predictions: Predictions, examples: Examples) -> None:
        self._predictions, self._examples = predictions, examples
        self._uris: dict[int, str | None] = {}

    def name(self, number: int) -> str:
        return self._predictions.paths[number]

    def original(self, number: int) -> UInt8[np.ndarray, "h w 3"] | None:
        """Returns an image as its source has it, in its own aspect; None where it cannot be read any more."""
        index = self._predictions.index
        source, chosen = self._examples.stored
        try:
            read = read_reduced(source, int(chosen[number if index is None else index[number]]), None)
        except CorruptImage:
            return None
        image, (height, width) = with_channels(read.image, 3), read.original
        if abs(width * image.shape[0] / (height * image.shape[1]) - 1) < 0.02:
            return image
        scale = max(image.shape[:2]) / max(height, width)  # it was squeezed
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))

    def uri(self, number: int) -> str | None:
        """Returns a thumbnail as a page can hold it."""
        if number not in self._uris:
            image = self.original(number)
            self._uris[number] = None if image is None else data_uri(thumbnail(image))
        return self._uris[number]
