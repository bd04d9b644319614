"""The images that int8 takes its ranges from, and those that it is measured on."""

from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from jaxnets.classifier import Classifier
from jaxnets.data.dataset import open_dataset
from jaxnets.data.decode import decode
from jaxnets.data.examples import Examples
from jaxnets.data.sources import CorruptImage
from jaxnets.data.sources.folder import image_files
from jaxnets.errors import UserError
from jaxnets.run.directory import open_run
from jaxnets.run.resolve import resolve


def calibration_images(
    model: str, classifier: Classifier, folder: Path | None, count: int
) -> UInt8[np.ndarray, "b h w c"]:
    """Returns up to `count` images, of a folder or of a run's training data, as the model sees them.

    Raises:
        UserError: if there are none.
    """
    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"--calibration {folder} is no folder: give one with images like those to come")
        files = image_files([folder])
        images = []
        for file in (files[i] for i in _spread(len(files), count)):
            try:
                images.append(classifier.preprocess.fit(decode(file, str(file))))
            except CorruptImage:
                continue
        if not images:
            raise UserError(f"none of the images in --calibration {folder} can be read")
        return np.stack(images)
    return _read(_examples(model, "train"), count)[0]


def scored_images(
    model: str, images: UInt8[np.ndarray, "b h w c"], count: int = 10_000
) -> tuple[UInt8[np.ndarray, "b h w c"], Int32[np.ndarray, " b"] | None, str]:
    """Returns images, their labels where they are known, and what is measured on them.

    A run has its test split; otherwise the calibration's images tell how often int8 agrees with float32.
    """
    if resolve(model).is_run:
        images, labels = _read(_examples(model, "test"), count)
        return images, labels, "test accuracy"
    return images, None, "agreement with float32"


def _examples(model: str, split: str) -> Examples:
    run = open_run(resolve(model).location)
    return open_dataset(run.read_config(), run.read_model().preprocess).split(split)


def _read(examples: Examples, count: int) -> tuple[np.ndarray, np.ndarray]:
    read = [examples.read(int(i)) for i in _spread(len(examples), count)]
    good = [(image, label) for image, label, readable in read if readable]
    return np.stack([image for image, _ in good]), np.array([label for _, label in good], np.int32)


def _spread(length: int, count: int) -> np.ndarray:
    """Returns up to `count` places, evenly spread."""
    return np.linspace(0, length - 1, min(length, count)).astype(int)
