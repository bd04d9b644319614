"""Predictions and models that are made up, for tests of what is computed from them."""

from pathlib import Path

import numpy as np

from jaxnets.evaluate.asked import OnnxModel
from jaxnets.evaluate.predictions import Predictions
from jaxnets.preprocess import Preprocess


def predictions(
    n: int = 60, classes: int = 4, *, seed: int = 0, skill: float = 1.5, several: bool = False, **changed
) -> Predictions:
    """Returns answers that are right more often than not; the images are called a0, a1, …"""
    random = np.random.default_rng(seed)
    labels = random.random((n, classes)) < 0.4 if several else random.integers(0, classes, n).astype(np.int32)
    logits = random.normal(size=(n, classes)).astype(np.float32)
    if several:
        logits += np.where(labels, skill, -skill).astype(np.float32)
    else:
        logits[np.arange(n), labels] += skill
    given = {
        "class_names": tuple(f"class {i}" for i in range(classes)),
        "labels": labels,
        "logits": logits,
        "paths": tuple(f"a{i}" for i in range(n)),
        "split": "test",
        "activation": "sigmoid" if several else "softmax",
        "several_labels": several,
    }
    return Predictions(**{**given, **changed})


def by_brightness(side: int = 16, channels: int = 3) -> OnnxModel:
    """Returns a model that takes images for "bright" or "dark" by their mean."""

    def logits(images: np.ndarray) -> np.ndarray:
        level = images.mean((1, 2, 3)) / 255
        return (8 * np.stack([level - 0.5, 0.5 - level], 1)).astype(np.float32)

    size = {"height": side, "width": side, "channels": channels}
    return OnnxModel(
        file=Path("made.onnx"),
        name="by brightness",
        labels=("bright", "dark"),
        preprocess=Preprocess(**size, mean=(0.5,) * channels, std=(0.2,) * channels),
        activation="softmax",
        thresholds=None,
        logits=logits,
        metadata={},
    )
