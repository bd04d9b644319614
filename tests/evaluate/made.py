"""Predictions made up for tests of what is computed from them."""

import numpy as np

from jaxnets.evaluate.predictions import Predictions


def predictions(labels, logits, **changed) -> Predictions:
    labels, logits = np.asarray(labels), np.asarray(logits, np.float32)
    several = labels.ndim == 2
    return Predictions(
        **{
            "class_names": tuple(f"class {i}" for i in range(logits.shape[1])),
            "labels": labels.astype(bool if several else np.int32),
            "logits": logits,
            "paths": tuple(f"{i}.png" for i in range(len(logits))),
            "split": "test",
            "activation": "sigmoid" if several else "softmax",
            "several_labels": several,
            **changed,
        }
    )


def random(n: int, classes: int, seed: int = 0, *, several: bool = False) -> Predictions:
    """Returns predictions that are better than chance."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 2, (n, classes))
    if several:
        labels = draw.random((n, classes)) < 0.3
        return predictions(labels, logits + 2 * labels - 1)
    labels = draw.integers(0, classes, n)
    return predictions(labels, logits + 2 * np.eye(classes)[labels])
