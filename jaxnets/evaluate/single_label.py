"""The figures of images with one label each, from what a model says of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from jaxnets.evaluate.confusion import Shares, averages, confusion, matthews, shares
from jaxnets.evaluate.intervals import share_interval
from jaxnets.evaluate.label_errors import Suspects, suspects
from jaxnets.evaluate.predictions import Predictions
from jaxnets.evaluate.ranking import Ranking, one_against_rest
from jaxnets.evaluate.reliability import Coverage, Reliability, coverage, reliability

_ROWS = 2048  # images at a time, in float64


@dataclass(frozen=True, kw_only=True)
class Judged:
    """All that is computed of a split, and `figures` and `per_class` of it as metrics.json holds them."""

    probabilities: Float32[np.ndarray, "n classes"]
    confidence: Float32[np.ndarray, " n"]  # of each answer
    right: Bool[np.ndarray, " n"]
    matrix: Int64[np.ndarray, "classes classes"]  # rows true
    shares: Shares
    ranking: Ranking
    reliability: Reliability
    coverage: Coverage
    suspects: Suspects
    figures: dict[str, Any]
    per_class: list[dict[str, Any]]


def judge(predictions: Predictions, temperature: float = 1.0) -> Judged:
    """Returns the figures of predictions with one label per image.

    A figure that is undefined is None: the area under the ROC curve of a class that all images have, or none. Means
    over the classes are over those that have one.

    Args:
        predictions: of images with one label each.
        temperature: that the model's probabilities are taken at.
    """
    labels, said = predictions.labels.astype(np.int32), predictions.said
    n, classes = predictions.logits.shape
    probabilities = predictions.probabilities(temperature)
    confidence, right = probabilities[np.arange(n), said], said == labels
    matrix = confusion(labels, said, classes)
    found = shares(matrix)
    ranking = one_against_rest(probabilities, labels)
    if classes == 2:  # one question: both classes have the same area, and near 1 more of p's digits are in 1 − p
        ranking = ranking._replace(roc_auc=np.repeat(ranking.roc_auc[1], 2))
    calibration, covered = reliability(confidence, right), coverage(confidence, right)
    there = (matrix.sum(0) + matrix.sum(1)) > 0
    accuracy = float(right.mean())
    figures = {
        "interval": share_interval(right, predictions.groups),
        **averages(found, accuracy, there),
        "matthews": matthews(matrix),
        "roc_auc": mean(ranking.roc_auc),
        "pr_auc": mean(ranking.average_precision),
        "log_loss": log_loss(predictions, temperature),
        "brier": brier(probabilities, labels),
        "ece": calibration.expected_error,
        "maximal_calibration_error": calibration.maximal_error,
        "mean_confidence": float(confidence.mean(dtype=np.float64)),
        "aurc": covered.area,
        "confusion": matrix.tolist(),
    }
    columns = {
        "precision": found.precision,
        "recall": found.recall,
        "f1": found.f1,
        "roc_auc": ranking.roc_auc,
        "average_precision": ranking.average_precision,
    }
    per_class = [
        {"support": int(found.support[i]), **{key: known(values[i]) for key, values in columns.items()}}
        for i in range(classes)
    ]
    return Judged(
        probabilities=probabilities,
        confidence=confidence,
        right=right,
        matrix=matrix,
        shares=found,
        ranking=ranking,
        reliability=calibration,
        coverage=covered,
        suspects=suspects(probabilities, labels),
        figures=figures,
        per_class=per_class,
    )


def log_loss(predictions: Predictions, temperature: float = 1.0) -> float:
    """Returns the mean of −log p of each image's class, from the logits: of a probability that float32 has as 0 too."""
    total = 0.0
    for start in range(0, len(predictions), _ROWS):
        z = predictions.logits[start : start + _ROWS].astype(np.float64) / temperature
        own = z[np.arange(len(z)), predictions.labels[start : start + len(z)]]
        peak = z.max(1)
        total += float((peak + np.log(np.exp(z - peak[:, None]).sum(1)) - own).sum())
    return total / len(predictions)


def brier(probabilities: Float32[np.ndarray, "n classes"], labels: np.ndarray) -> float:
    """Returns the mean of Σ (p − y)² over the classes (Brier 1950), halved with two classes, as is usual there.

    scikit-learn's `brier_score_loss`.
    """
    total = 0.0
    for start in range(0, len(probabilities), _ROWS):
        p = probabilities[start : start + _ROWS].astype(np.float64)
        own = p[np.arange(len(p)), labels[start : start + len(p)]]
        total += float(((p * p).sum(1) - 2 * own + 1).sum())
    return total / len(probabilities) / (2 if probabilities.shape[1] < 3 else 1)


def mean(values: Float64[np.ndarray, " n"]) -> float:
    """Returns the mean of the values that are known; NaN of none."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else float("nan")


def known(value: float) -> float | None:
    """Returns what JSON can hold."""
    return None if np.isnan(value) else float(value)
