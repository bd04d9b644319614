"""What a record keeps of an image and its answer, computed with the answer and for few microseconds more."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from jaxnets.answer import reason_of, refuses
from jaxnets.monitor.records import PROJECTED, RECORD, UNKNOWN, About, projection

if TYPE_CHECKING:
    from jaxnets.classifier import Classifier

_MORE = 3 + PROJECTED  # columns behind a row: energy, brightness, sharpness, projection


def look(image: UInt8[np.ndarray, "h w c"]) -> tuple[float, float]:
    """Returns an image's brightness and sharpness, both 0…1.

    Brightness is the mean over pixels and channels; sharpness the root of the mean squared difference of neighbours,
    to the right and below.
    """
    height, width, channels = image.shape
    mean = sum(cv2.mean(image)[:channels]) / (255 * channels)
    pairs = channels * ((height - 1) * width + height * (width - 1))
    if not pairs:
        return mean, 0.0
    down = cv2.norm(image[1:], image[:-1], cv2.NORM_L2SQR) if height > 1 else 0.0
    across = cv2.norm(image[:, 1:], image[:, :-1], cv2.NORM_L2SQR) if width > 1 else 0.0
    return mean, float(np.sqrt((down + across) / pairs)) / 255


class Observer:
    """Answers as a classifier does, and keeps with each row what a record has of it.

    Args:
        predictor: who answers; `observing`.
        name: that the model is served under.
        seed: of the projection.
    """

    def __init__(self, predictor: "Classifier", name: str, seed: int = 0) -> None:
        self.predictor = predictor
        shape = predictor.preprocess
        blank = np.zeros((1, shape.height, shape.width, shape.channels), np.uint8)
        rows, _, embedding = predictor.rows_and_more(blank)
        self.columns = rows.shape[1]  # of an answer's row
        self.about = About(
            model=name,
            architecture=predictor.name,
            fingerprint=predictor.fingerprint,
            step=predictor.step,
            labels=predictor.labels,
            several_labels=predictor.several_labels,
            calibrated=predictor.temperature is not None,
            features=embedding.shape[1],
            seed=seed,
        )
        self._matrix = projection(self.about.features, seed)

    def rows(self, images: UInt8[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b columns_and_more"]:
        """Returns the rows of fitted images, and behind each what `records` needs."""
        found = np.empty((len(images), self.columns + _MORE), np.float32)
        # Before the model: the images are still in the processor's cache.
        found[:, self.columns + 1 : self.columns + 3] = [look(image) for image in images]
        rows, energies, embeddings = self.predictor.rows_and_more(images)
        found[:, : self.columns] = rows
        found[:, self.columns] = energies
        np.matmul(embeddings, self._matrix, out=found[:, self.columns + 3 :])
        return found

    def records(
        self,
        rows: Float32[np.ndarray, "n columns_and_more"],
        sizes: Sequence[tuple[int, int]],
        *,
        ids: np.ndarray | int = 0,
        times: np.ndarray | float = 0.0,
        latencies: np.ndarray | float = np.nan,
        truths: np.ndarray | int = UNKNOWN,
    ) -> np.ndarray:
        """Returns the records of what `rows` returned.

        Args:
            rows: of the images.
            sizes: height and width of each as it came.
            ids: as RECORD has them, and so on.
        """
        classes = len(self.about.labels)
        found = np.zeros(len(rows), RECORD)
        found["label"] = rows[:, :classes].argmax(1)
        found["confidence"] = rows[:, :classes].max(1)
        if refuses(self.predictor):
            found["refused"] = [reason_of(self.predictor, row) is not None for row in rows[:, : self.columns]]
        found["energy"], found["brightness"], found["sharpness"] = rows[:, self.columns : self.columns + 3].T
        found["projection"] = rows[:, self.columns + 3 :]
        found["height"], found["width"] = np.asarray(sizes, np.int32).reshape(-1, 2).T
        found["id"], found["time"], found["latency"], found["truth"] = ids, times, latencies, truths
        return found
