"""Figures of images that count several times, or not at all: what resampling asks for, thousands of times.

Each is the metric of the same name (`jaxnets.metrics`), written so that all resamples of a block are one product of
matrices.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int
from scipy.sparse import csr_array

from jaxnets.answer import decide
from jaxnets.evaluate.predictions import Predictions
from jaxnets.evaluate.resampling import Figure

BINS = 15  # of confidence, for the calibration error (Guo et al. 2017)
_SMALL = 1e-12  # the least probability that a logarithm is taken of
_ROWS = 2048  # turned to float64 at a time

# By name, in the order in which they are shown; of those in LESS, less is better.
SINGLE = ("accuracy", "top5", "balanced_accuracy", "macro_f1", "log_loss", "brier", "ece")
SEVERAL = ("accuracy", "macro_f1", "micro_f1", "hamming_loss", "log_loss", "brier")
LESS = frozenset({"log_loss", "brier", "ece", "hamming_loss"})
TITLES = {
    "accuracy": "accuracy",
    "top5": "top-5",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "hamming_loss": "Hamming loss",
    "log_loss": "log-loss",
    "brier": "Brier score",
    "ece": "calibration error",
}
SHARES = frozenset(TITLES) - {"log_loss", "brier"}  # shown in percent


def figures_by_name(
    predictions: Predictions,
    *,
    temperature: float = 1.0,
    thresholds: Sequence[float] | None = None,
) -> dict[str, Figure]:
    """Returns what computes each metric of a model's answers from how often each image counts.

    Args:
        predictions: of the model.
        temperature: that its logits are divided by.
        thresholds: of each class where an image may have several; None: one half.
    """
    probabilities = predictions.probabilities(temperature)
    right = is_right(predictions, probabilities, thresholds)
    targets = predictions.targets
    found: dict[str, Figure] = {"accuracy": mean(right)}
    if predictions.several_labels:
        said = decide(probabilities, thresholds)
        true, false, missed = (x.astype(np.float64) for x in (said & targets, said & ~targets, ~said & targets))
        found["macro_f1"] = _f1(true, false, missed, macro=True)
        found["micro_f1"] = _f1(true, false, missed, macro=False)
        found["hamming_loss"] = mean((false + missed).mean(1))
        wide = probabilities.astype(np.float64)
        likelihood = np.where(targets, wide, 1 - wide)
        found["log_loss"] = mean(-np.log(np.maximum(likelihood, _SMALL)).mean(1))
        found["brier"] = mean(((wide - targets) ** 2).mean(1))
        return found
    labels, classes = predictions.labels, len(predictions.class_names)
    if classes > 5:
        found["top5"] = mean(_among_best(predictions.logits, labels, 5))
    of_class, said_class = _one_hot(labels, classes), _one_hot(predictions.said, classes)
    right_of_class = _one_hot(labels, classes, right)
    found["balanced_accuracy"] = _balanced_accuracy(of_class, right_of_class)
    found["macro_f1"] = _macro_f1(of_class, said_class, right_of_class)
    found["log_loss"] = mean(-_log_probability(predictions, temperature))
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    squares = np.einsum("nc,nc->n", probabilities, probabilities, dtype=np.float64)
    found["brier"] = mean((squares - 2 * own + 1) / (2 if classes < 3 else 1))
    found["ece"] = _calibration_error(probabilities.max(1).astype(np.float64), right)
    return {name: found[name] for name in SINGLE if name in found}


def is_right(
    predictions: Predictions,
    probabilities: Float32[np.ndarray, "n classes"] | None = None,
    thresholds: Sequence[float] | None = None,
) -> Bool[np.ndarray, " n"]:
    """Returns whether each image is answered rightly: by its class, or by all the labels that it has and no other."""
    if not predictions.several_labels:
        return predictions.said == predictions.labels
    given = predictions.probabilities() if probabilities is None else probabilities
    return (decide(given, thresholds) == predictions.labels).all(1)


def evaluate(figures: Mapping[str, Figure], count: int) -> dict[str, float]:
    """Returns each figure of `count` images that all count once; NaN where it has none."""
    whole = np.ones((1, count), np.int64)
    return {name: float(figure(whole)[0]) if count else float("nan") for name, figure in figures.items()}


def mean(values: np.ndarray) -> Figure:
    """Returns what computes the mean of a value that each image has."""
    wide = values.astype(np.float64)
    return lambda counts: _ratio(counts @ wide, counts.sum(1))


def _log_probability(predictions: Predictions, temperature: float) -> Float64[np.ndarray, " n"]:
    """Returns log p of each image's class, from the logits: of a probability that float32 has as 0 too."""
    found = np.empty(len(predictions))
    for start in range(0, len(predictions), _ROWS):
        rows = slice(start, start + _ROWS)
        z = predictions.logits[rows].astype(np.float64) / temperature
        peak = z.max(1)
        found[rows] = z[np.arange(len(z)), predictions.labels[rows]] - peak
        found[rows] -= np.log(np.exp(z - peak[:, None]).sum(1))
    return found


def _among_best(logits: np.ndarray, labels: Int[np.ndarray, " n"], best: int) -> Bool[np.ndarray, " n"]:
    """Returns whether fewer than `best` classes are more probable than each image's own; of equal ones the first is."""
    own = logits[np.arange(len(labels)), labels][:, None]
    before = np.arange(logits.shape[1])[None] < labels[:, None]
    return ((logits > own) | ((logits == own) & before)).sum(1) < best


def _balanced_accuracy(of_class: csr_array, right: csr_array) -> Figure:
    def figure(counts: np.ndarray) -> Float64[np.ndarray, " r"]:
        seen, found = counts @ of_class, counts @ right
        return _mean_known(_ratio(found, seen))

    return figure


def _macro_f1(of_class: csr_array, said: csr_array, right: csr_array) -> Figure:
    def figure(counts: np.ndarray) -> Float64[np.ndarray, " r"]:
        return _mean_known(_ratio(2 * (counts @ right), counts @ of_class + counts @ said))

    return figure


def _f1(true: np.ndarray, false: np.ndarray, missed: np.ndarray, *, macro: bool) -> Figure:
    def figure(counts: np.ndarray) -> Float64[np.ndarray, " r"]:
        tp, fp, fn = (counts @ x for x in (true, false, missed))
        if macro:
            return _mean_known(_ratio(2 * tp, 2 * tp + fp + fn))
        return _ratio(2 * tp.sum(1), (2 * tp + fp + fn).sum(1))

    return figure


def _calibration_error(confidence: Float64[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> Figure:
    """Returns what computes Σ |Σ confidence − Σ right| over the bins, divided by the number of images."""
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    excess = _one_hot(bins, BINS, confidence - right)
    return lambda counts: _ratio(np.abs(counts @ excess).sum(1), counts.sum(1))


def _one_hot(column: Int[np.ndarray, " n"], columns: int, values: np.ndarray | None = None) -> csr_array:
    """Returns `[n, columns]` with each row's value, 1 where none are given, in its column."""
    filled = np.ones(len(column)) if values is None else values.astype(np.float64)
    return csr_array((filled, (np.arange(len(column)), column)), shape=(len(column), columns))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> Float64[np.ndarray, "*n"]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(numerator, np.float64) / np.where(denominator == 0, np.nan, denominator)


def _mean_known(values: Float64[np.ndarray, "r classes"]) -> Float64[np.ndarray, " r"]:
    """Returns each row's mean over the classes that have a value."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(1), known.sum(1))


def shown(name: str, value: float) -> str:
    """Returns a figure as text: a share in percent, another number with four digits, — where there is none."""
    if np.isnan(value):
        return "—"
    return f"{value:.2%}" if name in SHARES else f"{value:.4f}"
