"""A split's metrics, as report/metrics.json holds them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnets.metrics.metric import figures_of
from jaxnets.metrics.table import EVALUATION


def metrics_report(
    total: Mapping[str, np.ndarray], class_names: tuple[str, ...], *, split: str, model: str, step: int | None
) -> dict[str, Any]:
    """Returns the metrics of a split, over all examples and per class.

    `per_class` maps a class name to its number of examples, how many of them were right, and their share (None for a
    class without examples).
    """
    per_class = {
        name: {"count": int(count), "correct": int(correct), "accuracy": float(correct / count) if count else None}
        for name, count, correct in zip(class_names, total["class_count"], total["class_correct"], strict=True)
    }
    return {
        "format": 1,
        "model": model,
        "step": step,
        "split": split,
        **figures_of(EVALUATION, total),
        "correct": int(total["correct"]),
        "per_class": per_class,
    }
