"""A split's metrics, as report/metrics.json holds them."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnets.answer import HALF
from jaxnets.metrics.metric import figures_of
from jaxnets.metrics.several_labels import F1_AT_HALF, average_precision, f1, precision, recall
from jaxnets.metrics.table import EVALUATION


def metrics_report(
    total: Mapping[str, np.ndarray],
    class_names: tuple[str, ...],
    *,
    split: str,
    model: str,
    step: int | None,
    thresholds: tuple[float, ...] | None = None,
) -> dict[str, Any]:
    """Returns the metrics of a split, over all examples and per class.

    `per_class` maps a class name to its number of examples, how many of them were right, and their share (None for a
    class without examples). Where an image may have several labels, it maps to the number of images that have the
    class, the threshold above which it was said, the share of all images of which it was rightly said or not said, and
    its precision, recall, F1 and average precision (None where there is nothing that they could be the share of). With
    `thresholds` other than one half, F1 at one half stands beside them.
    """
    several = "true_positives" in total
    return {
        "format": 1,
        "model": model,
        "step": step,
        "split": split,
        **figures_of((*EVALUATION, F1_AT_HALF), total),
        "correct": int(total["correct"]),
        "per_class": _several(total, class_names, thresholds) if several else _single(total, class_names),
    }


def _single(total: Mapping[str, np.ndarray], class_names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    return {
        name: {"count": int(count), "correct": int(correct), "accuracy": float(correct / count) if count else None}
        for name, count, correct in zip(class_names, total["class_count"], total["class_correct"], strict=True)
    }


def _several(
    total: Mapping[str, np.ndarray], class_names: tuple[str, ...], thresholds: tuple[float, ...] | None
) -> dict[str, dict[str, Any]]:
    wrong = total["false_positives"] + total["false_negatives"]
    count = total["true_positives"] + total["false_negatives"]
    shares = {
        "accuracy": 1 - wrong / np.where(total["count"], total["count"], np.nan),
        "precision": precision(total),
        "recall": recall(total),
        "f1": f1(total),
        "average_precision": average_precision(total),
    }
    return {
        name: {
            "count": int(count[i]),
            "threshold": thresholds[i] if thresholds else HALF,
            **{key: _known(values[i]) for key, values in shares.items()},
        }
        for i, name in enumerate(class_names)
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
