"""How much worse a model gets when its images are corrupted (Hendrycks & Dietterich 2019, arXiv:1903.12261, section 3).

Of each corruption the error is averaged over its severities, then over the corruptions. The paper divides each
corruption's error by AlexNet's before that, so that a hard corruption does not count more: this is the mean corruption
error, mCE, and there is such a baseline for ImageNet alone. Without it the mean is of the errors as they are
("unnormalised"). The relative error is what the corruption adds to the error on clean images.

The images are corrupted at the size that the model sees. ImageNet-C's own files were written as JPEG after that, and
their frost is of photographs: errors here are like those of the published files, not the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from jaxnets.data.examples import Examples
from jaxnets.errors import UserError
from jaxnets.evaluate.asked import Asked, logits_of
from jaxnets.evaluate.corrupted_examples import CorruptedExamples, Kind
from jaxnets.evaluate.corruptions.severity import Scale
from jaxnets.evaluate.corruptions.table import COMMON, OF_COLOUR, STRENGTHS, check, scale_of
from jaxnets.evaluate.predictions import Predictions
from jaxnets.evaluate.resampling import Interval, bootstrap
from jaxnets.evaluate.views import Views
from jaxnets.evaluate.weighted import is_right, mean
from jaxnets.pretrained.imagenet import class_names as imagenet_names

IMAGES = 1000  # that are corrupted unless more are asked for: 75 passes over 50,000 take long
# AlexNet's mean error over the five severities (the authors' repository), and on clean images (torchvision's weights,
# which they took).
ALEXNET = dict(
    zip(
        COMMON,
        (
            *(0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, 0.866816, 0.826572, 0.819324),
            *(0.564592, 0.853204, 0.646056, 0.717840, 0.606500),
        ),
        strict=True,
    )
)
ALEXNET_CLEAN = 0.43478
_DATA: dict[Scale, str] = {"cifar": "CIFAR-10-C", "tiny": "Tiny ImageNet-C", "imagenet": "ImageNet-C"}
_LOGITS = 2**26  # in memory at a time


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """Errors of a model on corrupted images."""

    names: tuple[str, ...]
    wrong: Bool[np.ndarray, "images corruptions severities"]
    clean_wrong: Bool[np.ndarray, " images"]
    chosen: Int64[np.ndarray, " images"]  # their numbers in the split
    scale: Scale  # the size of image whose severities were taken
    of: int  # images that there are
    seed: int
    is_imagenet: bool  # whether AlexNet is a baseline
    left_out: tuple[str, ...] = ()  # what was asked for and means nothing for these images
    units: np.ndarray | None = None  # the group of each image, where there are some

    @property
    def clean_error(self) -> float:
        return float(self.clean_wrong.mean())

    @property
    def errors(self) -> np.ndarray:
        """The error of each corruption at each severity, float64 `[corruptions, severities]`."""
        return self.wrong.mean(0)

    @property
    def mean_error(self) -> Interval:
        """The mean error over corruptions and severities, unnormalised, with the interval of drawing other images.

        It is over the fifteen, as far as they were asked for: the four more count where they are alone.
        """
        return self._interval(self._of_each())

    @property
    def relative_error(self) -> Interval:
        """What corruption adds to the error on the same images, likewise."""
        return self._interval(self._of_each() - self.clean_wrong)

    @property
    def mce(self) -> float | None:
        """The paper's mean corruption error, over AlexNet's; None where it is no baseline, or a corruption is missing.

        Equation 1: the mean over the corruptions of the model's summed errors over AlexNet's.
        """
        if not self._has_baseline:
            return None
        return float(np.mean([self._of(name) / ALEXNET[name] for name in COMMON]))

    @property
    def relative_mce(self) -> float | None:
        """The paper's relative mCE: the same of what each corruption adds to the clean error (its section 3)."""
        if not self._has_baseline:
            return None
        ratios = [(self._of(name) - self.clean_error) / (ALEXNET[name] - ALEXNET_CLEAN) for name in COMMON]
        return float(np.mean(ratios))

    @property
    def _has_baseline(self) -> bool:
        return self.is_imagenet and set(COMMON) <= set(self.names)

    def _of_each(self) -> np.ndarray:
        """Returns the mean error of each image."""
        common = [i for i, name in enumerate(self.names) if name in COMMON]
        return self.wrong[:, common or slice(None)].mean((1, 2))

    def _of(self, name: str) -> float:
        return float(self.errors[self.names.index(name)].mean())

    def _interval(self, values: np.ndarray) -> Interval:
        return bootstrap([mean(values)], len(values), seed=self.seed, units=self.units)[0]

    @property
    def notes(self) -> list[str]:
        """What has to be known to read the figures."""
        said = [
            f"{len(self.chosen):,} of {self.of:,} images, severities as in {_DATA[self.scale]}, seed {self.seed}",
            "corrupted at the model's size and not written as JPEG after that, which ImageNet-C's files were",
        ]
        if (extra := [name for name in self.names if name not in COMMON]) and len(extra) < len(self.names):
            said.append(f"the means are without {', '.join(extra)}")
        if self.left_out:
            said.append(f"without {', '.join(self.left_out)}: the images are grey")
        if "frost" in self.names:
            said.append("frost is drawn, where ImageNet-C has photographs of it")
        if self.mce is None:
            said.append("unnormalised: the paper divides by AlexNet's errors, which are known for ImageNet alone")
        return said

    def to_json(self) -> dict[str, Any]:
        return {
            "images": len(self.chosen),
            "seed": self.seed,
            "scale": self.scale,
            "clean_error": self.clean_error,
            "mean_error": self.mean_error.to_json(),
            "relative_error": self.relative_error.to_json(),
            "mce": self.mce,
            "relative_mce": self.relative_mce,
            "errors": {name: row.tolist() for name, row in zip(self.names, self.errors, strict=True)},
            "notes": self.notes,
        }


def measure(
    asked: Asked,
    examples: Examples,
    predictions: Predictions,
    *,
    names: Sequence[str] = COMMON,
    most: int | None = IMAGES,
    seed: int = 0,
    temperature: float = 1.0,
    views: Views | None = None,
    batch_size: int = 64,
    threads: int = 1,
) -> Robustness:
    """Asks a model about corrupted images.

    Args:
        asked: the model.
        examples: of a split, fitted to it.
        predictions: of the model on them, uncorrupted.
        names: of corruptions; those of colours are left out where images are grey.
        most: images that are corrupted, drawn by the seed; None for all.
        seed: of what is drawn.
        temperature: of its probabilities, which decides where thresholds do.
        views: of each image, whose logits are averaged; as in the predictions.
        batch_size: examples at a time.
        threads: that read and corrupt.

    Raises:
        UserError: if there is no such corruption, none is left, or the images are too small.
    """
    height, width, channels = examples.shape
    for name in names:
        check(name, 1, height, width, 3)
    kept = tuple(dict.fromkeys(name for name in names if channels > 1 or name not in OF_COLOUR))
    if not kept:
        raise UserError(f"{', '.join(names)} changes colours, and the images are grey: give other corruptions")
    numbers = np.arange(len(predictions))
    if most is not None and most < len(numbers):
        numbers = np.sort(np.random.default_rng(seed).choice(len(numbers), most, replace=False))
    of_split = numbers if predictions.index is None else predictions.index[numbers]
    clean = predictions.take(numbers)
    kinds: list[Kind] = [(name, severity) for name in kept for severity in STRENGTHS]
    at_once = max(_LOGITS // (len(predictions.class_names) * len(kinds)), 1)
    wrong = [
        _wrong(
            asked,
            CorruptedExamples(examples, of_split[start : start + at_once], kinds, seed),
            temperature,
            views=views,
            batch_size=batch_size,
            threads=threads,
        )
        for start in range(0, len(numbers), at_once)
    ]
    clean_right = is_right(clean, clean.probabilities(temperature) if clean.several_labels else None, asked.thresholds)
    return Robustness(
        names=kept,
        left_out=tuple(name for name in names if name not in kept),
        wrong=np.concatenate(wrong).reshape(len(numbers), len(kept), len(STRENGTHS)),
        clean_wrong=~clean_right,
        chosen=of_split,
        scale=scale_of(height, width),
        of=len(predictions),
        seed=seed,
        is_imagenet=predictions.class_names == imagenet_names(),
        units=clean.groups,
    )


def _wrong(
    asked: Asked,
    examples: CorruptedExamples,
    temperature: float,
    *,
    views: Views | None,
    batch_size: int,
    threads: int,
) -> Bool[np.ndarray, " n"]:
    """Returns whether each corrupted image is answered wrongly."""
    logits, _ = logits_of(asked, examples, batch_size=batch_size, threads=threads, views=views)
    said = Predictions(
        class_names=asked.labels,
        labels=examples.labels.astype(bool if examples.several_labels else np.int32),
        logits=logits,
        paths=("a corrupted image",) * len(examples),
        split="corrupted",
        activation=asked.activation,
        several_labels=examples.several_labels,
    )
    return ~is_right(said, said.probabilities(temperature) if said.several_labels else None, asked.thresholds)
