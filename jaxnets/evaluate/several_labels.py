"""The figures of images that may have several labels: each class a question of its own, yes or no."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from jaxnets.answer import HALF
from jaxnets.evaluate.intervals import share_interval
from jaxnets.evaluate.label_errors import Suspects, suspects_of_several
from jaxnets.evaluate.predictions import Predictions
from jaxnets.evaluate.ranking import Ranking, one_against_rest
from jaxnets.evaluate.reliability import BINS, Coverage, Reliability, add, coverage, from_sums
from jaxnets.evaluate.single_label import known, mean

THRESHOLDS = tuple(k / 100 for k in range(5, 100, 5))  # that F1 is given at
_ROWS = 2048  # images at a time, in float64


@dataclass(frozen=True, kw_only=True)
class JudgedSeveral:
    """All that is computed of a split, and `figures` and `per_class` of it as metrics.json holds them."""

    probabilities: Float32[np.ndarray, "n classes"]
    said: Bool[np.ndarray, "n classes"]
    confidence: Float32[np.ndarray, " n"]  # of the least sure of the answers of each image
    right: Bool[np.ndarray, " n"]  # all of them
    cells: Int64[np.ndarray, "classes 2 2"]  # of each class: rows true, no and yes
    ranking: Ranking
    reliability: Reliability  # of all questions together
    coverage: Coverage
    suspects: Suspects
    f1_at: dict[float, tuple[float, float]]  # macro and micro F1 by the threshold of all labels
    figures: dict[str, Any]
    per_class: list[dict[str, Any]]


def judge_several(
    predictions: Predictions, thresholds: Sequence[float] | None = None, temperature: float = 1.0
) -> JudgedSeveral:
    """Returns the figures of predictions with several labels per image.

    Args:
        predictions: of images that may have several labels, or none.
        thresholds: of each class, above which it is said; None: one half.
        temperature: that the model's probabilities are taken at.
    """
    has = predictions.labels.astype(bool)
    classes = has.shape[1]
    probabilities = predictions.probabilities(temperature)
    bounds = np.asarray(HALF if thresholds is None else thresholds, probabilities.dtype)
    said = probabilities > bounds
    confidence = np.where(said, probabilities, 1 - probabilities).min(1)
    right = (said == has).all(1)
    true = (said & has).sum(0, dtype=np.int64)
    false, missed = said.sum(0, dtype=np.int64) - true, has.sum(0, dtype=np.int64) - true
    cells = np.stack([len(has) - true - false - missed, false, missed, true], -1).reshape(classes, 2, 2)
    ranking = one_against_rest(predictions.logits, has)  # they are ordered as the probabilities, without ties near 1
    sums, brier, loss = np.zeros((3, BINS)), 0.0, 0.0
    for start in range(0, len(has), _ROWS):
        rows = slice(start, start + _ROWS)
        p, y = probabilities[rows].astype(np.float64), has[rows]
        add(sums, np.where(said[rows], p, 1 - p).reshape(-1), (said[rows] == y).reshape(-1))
        brier += float(((p - y) ** 2).sum())
        z = predictions.logits[rows].astype(np.float64) / temperature
        loss += float(np.logaddexp(0, np.where(y, -z, z)).sum())
    calibration, covered = from_sums(sums), coverage(confidence, right)
    at = _f1_at(probabilities, has)
    questions = has.size
    figures = {
        "interval": share_interval(right, predictions.groups),
        "mean_average_precision": mean(ranking.average_precision),
        "pr_auc": mean(ranking.average_precision),
        "roc_auc": mean(ranking.roc_auc),
        **_averages(true, false, missed),
        "hamming_loss": float((false.sum() + missed.sum()) / questions),
        "log_loss": loss / questions,
        "brier": brier / questions,
        "ece": calibration.expected_error,
        "maximal_calibration_error": calibration.maximal_error,
        "aurc": covered.area,
        "f1_at_thresholds": {f"{t:.2f}": {"macro": macro, "micro": micro} for t, (macro, micro) in at.items()},
        "confusion": cells.tolist(),
    }
    per_class = [
        {
            "support": int(true[i] + missed[i]),
            "roc_auc": known(ranking.roc_auc[i]),
            "average_precision": known(ranking.average_precision[i]),
        }
        for i in range(classes)
    ]
    return JudgedSeveral(
        probabilities=probabilities,
        said=said,
        confidence=confidence,
        right=right,
        cells=cells,
        ranking=ranking,
        reliability=calibration,
        coverage=covered,
        suspects=suspects_of_several(probabilities, has),
        f1_at=at,
        figures=figures,
        per_class=per_class,
    )


def _averages(true: np.ndarray, false: np.ndarray, missed: np.ndarray) -> dict[str, float]:
    """Returns the means of precision, recall and F1 over classes and over all questions.

    A class of which one is undefined is left out of its mean, as in `jaxnets.metrics.several_labels`.
    """
    weights = true + missed
    means = {}
    for key, part, whole in (
        ("precision", true, true + false),
        ("recall", true, true + missed),
        ("f1", 2 * true, 2 * true + false + missed),
    ):
        values = part / np.where(whole == 0, np.nan, whole)
        means[f"macro_{key}"] = mean(values)
        means[f"micro_{key}"] = float(part.sum() / whole.sum()) if whole.sum() else float("nan")
        means[f"weighted_{key}"] = (
            float((weights * np.nan_to_num(values)).sum() / weights.sum()) if weights.sum() else float("nan")
        )
    return means


def _f1_at(
    probabilities: Float32[np.ndarray, "n classes"], has: Bool[np.ndarray, "n classes"]
) -> dict[float, tuple[float, float]]:
    """Returns macro and micro F1 where one threshold is that of all labels, for each of THRESHOLDS."""
    classes = has.shape[1]
    bounds = np.asarray(THRESHOLDS, probabilities.dtype)
    bins = len(bounds) + 1
    counts = np.zeros((2, classes, bins), np.int64)  # of the others and of those that have it, by thresholds passed
    for start in range(0, len(has), _ROWS):
        passed = np.searchsorted(bounds, probabilities[start : start + _ROWS])  # how many thresholds lie below each
        cell = (has[start : start + _ROWS] * classes + np.arange(classes)) * bins + passed
        counts += np.bincount(cell.reshape(-1), minlength=counts.size).reshape(counts.shape)
    positive = counts[1].sum(1)
    found = {}
    for number, threshold in enumerate(THRESHOLDS):
        true, false = counts[1][:, number + 1 :].sum(1), counts[0][:, number + 1 :].sum(1)
        whole = true + false + positive
        each: Float64[np.ndarray, " classes"] = 2 * true / np.where(whole == 0, np.nan, whole)
        micro = float(2 * true.sum() / whole.sum()) if whole.sum() else float("nan")
        found[threshold] = (mean(each), micro)
    return found
