"""The images that int8 takes its ranges from, and those that it is measured on: others, where there are some."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxnets.classifier import Classifier
from jaxnets.data.dataset import Dataset, open_dataset
from jaxnets.data.decode import decode
from jaxnets.data.examples import Examples
from jaxnets.data.sources import CorruptImage
from jaxnets.data.sources.folder import image_files
from jaxnets.errors import UserError
from jaxnets.export.check import Logits
from jaxnets.preprocess import Preprocess
from jaxnets.run.directory import RunDirectory, open_run
from jaxnets.run.resolve import resolve

_log = logging.getLogger(__name__)

_MOST = 256  # images that set the ranges
_MOST_OTHERS = 1000  # of a folder, that int8 is measured on
_MOST_TESTED = 10_000  # of a run's test split, likewise
_MOST_BYTES = 1 << 29  # of a folder's images in memory
_FEW = 32  # images, below which the ranges are a matter of luck
_ENOUGH_TO_DIVIDE = 8  # different images, from which on every fourth is kept back
_FLAT = 0.05  # deviations of the training images' pixels: an image whose own deviate by less shows nothing
_ALIKE = 0.1  # of the largest logit: images whose logits differ by less are one image to the model
_UNMOVED = "they move few of the activations whose ranges int8 needs"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    images: UInt8[np.ndarray, "b h w c"]  # whose activations set the ranges
    deviation: np.ndarray  # of the training images' pixels, scaled to 0…1, for each channel
    source: str  # where they come from, and what was left out
    scored: UInt8[np.ndarray, "n h w c"]  # that int8 is measured on
    labels: np.ndarray | None  # of those, `[n]` or `[n, classes]`; None: float32's own answers are the measure
    measure: str  # what is measured, and on which images

    def doubts(self, logits: Logits, max_loss: float) -> list[str]:
        """Returns why int8 from these images may be worse than it looks, a sentence each.

        Args:
            logits: of the model in float32.
            max_loss: share of the answers that int8 may lose.
        """
        said = []
        count, scored = len(self.images), len(self.scored)
        if count < _FEW:
            said.append(
                f"int8 was calibrated on {count} different {plural('image', count)}: values beyond theirs are cut "
                f"off, so give some hundreds of the kind that the model will see"
            )
        contrast = self.images.std((1, 2)) / (255 * self.deviation)
        flat = int((contrast.max(-1) < _FLAT).sum())
        found = np.concatenate([logits(batch) for batch in batches(self.images)])
        spread = float(np.ptp(found, axis=0).max() / max(np.abs(found).max(), 1e-30))
        if 2 * flat >= count:
            said.append(f"{flat} of {count} calibration images are of hardly more than one colour: {_UNMOVED}")
        elif count > 1 and spread < _ALIKE:
            said.append(
                f"the calibration images are alike to the model (their logits differ by {spread:.1%} of the largest): "
                f"{_UNMOVED}"
            )
        if self.labels is None and self.scored is self.images:
            said.append(
                f"int8 was measured on the images that it was calibrated on, which says little of others: from "
                f"{_ENOUGH_TO_DIVIDE} different images on, some are kept back for that"
            )
        elif scored * max_loss < 1:
            said.append(f"int8 was measured on {scored} {plural('image', scored)}, each of which is {1 / scored:.1%}")
        return said


def run_of(model: str) -> RunDirectory | None:
    """Returns the run that a model's name means, None where it means another kind of model."""
    meant = resolve(model)
    return open_run(meant.location) if meant.is_run else None


def no_images(model: str) -> UserError:
    return UserError(
        f"int8 needs images to find its ranges, and {model} is no run with training data: give a folder of some "
        f"hundred images like those to come with --calibration"
    )


def open_calibration(model: str, classifier: Classifier, folder: Path | None) -> Calibration:
    """Returns images of a folder, or of a run's training data, and what int8 is measured on.

    A run is measured on its test split. Where there is none, some of the images are kept back, if there are enough, and
    tell how often int8 agrees with float32.

    Raises:
        UserError: if there are no images.
    """
    dataset = _dataset(model, classifier.preprocess, needed=folder is None)
    if folder is not None:
        images, source = _of_folder(folder, classifier.preprocess)
    elif dataset is not None:
        images, _, unreadable = _of_split(dataset.split("train"), _MOST)
        images, source = _different(images, "the training split", unreadable)
    else:
        raise no_images(model)
    if dataset is not None and "test" in dataset.splits:
        used = images[_spread(len(images), _MOST)]
        scored, labels, _ = _of_split(dataset.split("test"), _MOST_TESTED)
        measure = f"test accuracy of {len(scored)} {plural('image', len(scored))}"
    else:
        used, others = _divided(images)
        scored, labels = used if others is None else others, None
        which = f"the same {len(scored)}" if others is None else f"{len(scored)} other"
        measure = f"agreement with float32 on {which} {plural('image', len(scored))}"
    return Calibration(
        images=used,
        deviation=np.asarray(classifier.preprocess.std),
        source=source,
        scored=scored,
        labels=labels,
        measure=measure,
    )


def batches(images: np.ndarray, size: int = 64) -> Iterable[np.ndarray]:
    return (images[start : start + size] for start in range(0, len(images), size))


def _dataset(model: str, preprocess: Preprocess, *, needed: bool) -> Dataset | None:
    """Returns a run's data; None for other models, and where the data is gone and not `needed`."""
    run = run_of(model)
    if run is None:
        return None
    try:
        return open_dataset(run.read_config(), preprocess)
    except UserError as error:
        if needed:
            raise UserError(f"{error}; or give a folder of images like those to come with --calibration") from error
        _log.warning("%s; int8 is not measured on the run's test split", error)
        return None


def _of_folder(folder: Path, preprocess: Preprocess) -> tuple[np.ndarray, str]:
    if not folder.is_dir():
        raise UserError(f"--calibration {folder} is no folder: give one with images like those to come")
    files = image_files([folder])
    most = min(
        _MOST + _MOST_OTHERS, max(_MOST_BYTES // (preprocess.height * preprocess.width * preprocess.channels), 1)
    )
    images: list[np.ndarray] = []
    chosen = _spread(len(files), most)
    for file in (files[i] for i in chosen):
        try:
            images.append(preprocess.fit(decode(file, str(file), preprocess.white_level)))
        except CorruptImage as error:
            _log.debug("%s", error)
    if not images:
        raise UserError(f"none of the {len(chosen)} images in --calibration {folder} can be read: give others")
    return _different(np.stack(images), str(folder), len(chosen) - len(images))


def _of_split(examples: Examples, count: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns up to `count` images, their labels, and how many of them could not be read."""
    read = [examples.read(int(i)) for i in _spread(len(examples), count)]
    good = [example for example in read if example.readable]
    if not good:
        raise UserError(f"none of {len(read)} images of the run's data can be read: look at its source")
    labels: Any = [example.label for example in good]
    return np.stack([example.image for example in good]), np.asarray(labels), len(read) - len(good)


def _different(images: np.ndarray, source: str, unreadable: int) -> tuple[np.ndarray, str]:
    """Leaves out copies, which would be measured on what they were calibrated on."""
    first = sorted({image.tobytes(): i for i, image in reversed(list(enumerate(images)))}.values())
    copies = len(images) - len(first)
    left_out = [f"{unreadable} could not be read"] if unreadable else []
    if copies:
        left_out.append("1 is a copy of another" if copies == 1 else f"{copies} are copies of others")
    return images[first], source + (f" ({', '.join(left_out)})" if left_out else "")


def _divided(images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the images to calibrate on, and others to measure on: every fourth, and all beyond the most."""
    if len(images) < _ENOUGH_TO_DIVIDE:
        return images, None
    kept_back = np.arange(len(images)) % 4 == 3
    candidates = np.flatnonzero(~kept_back)
    used = np.zeros(len(images), bool)
    used[candidates[_spread(len(candidates), _MOST)]] = True
    return images[used], images[~used]


def _spread(length: int, count: int) -> np.ndarray:
    """Returns up to `count` indices, evenly spread."""
    return np.linspace(0, length - 1, min(length, count)).astype(int)


def plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"
