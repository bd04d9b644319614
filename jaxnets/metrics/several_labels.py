"""What is measured where an image may have several labels: each class is a question of its own, yes or no.

Decisions are taken at a probability of one half, or at the thresholds that an `Outcome` gives. Precision is the share
of right ones among what was answered with yes, recall among what is a yes, F1 their harmonic mean:
2 TP / (2 TP + FP + FN) of true and false positives and false negatives. Micro F1 is that of all questions together;
macro F1 the mean over the classes, each counting the same. Label accuracy is the share of all questions that were
answered rightly, Hamming loss the share of the others.

Average precision does without a threshold: Σ (Rₙ − Rₙ₋₁) Pₙ over falling scores, as scikit-learn's
`average_precision_score`, which counts equal scores as one. It needs the order of all scores; so that it adds up over
batches, scores are counted in bins, and what lies in one is equal. With the metric SCORES they are kept instead, and it
is exact. The mean is over the classes that have examples.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxnets.metrics.metric import ROWS, Metric, Outcome, Sums, ratio

BINS = 400  # of logits,
RANGE = 10.0  # from minus this to this: 0.05 each
_SCORES, _LABELS = f"{ROWS}scores", f"{ROWS}labels"  # float32 and int8, `[n, classes]`
_MASKED = -1  # among the labels
_AT_HALF = "_at_half"


def _decisions(outcome: Outcome) -> Sums:
    if not outcome.several_labels:
        return {}
    right = (outcome.decisions == (outcome.label > 0.5)) & outcome.mask[:, None]
    return {
        "label_count": outcome.mask.sum(dtype=jnp.int32) * jnp.int32(outcome.logits.shape[-1]),
        "label_correct": right.sum(dtype=jnp.int32),
    }


def _confusion(outcome: Outcome) -> Sums:
    if not outcome.several_labels:
        return {}
    true, said, counts = outcome.label > 0.5, outcome.decisions, outcome.mask[:, None]
    return {
        "true_positives": (true & said & counts).sum(0, dtype=jnp.int32),
        "false_positives": (~true & said & counts).sum(0, dtype=jnp.int32),
        "false_negatives": (true & ~said & counts).sum(0, dtype=jnp.int32),
    }


def _confusion_at_half(outcome: Outcome) -> Sums:
    return {f"{name}{_AT_HALF}": x for name, x in _confusion(outcome._replace(thresholds=None)).items()}


def _all_scores(outcome: Outcome) -> Sums:
    if not outcome.several_labels:
        return {}
    labels = jnp.where(outcome.mask[:, None], (outcome.label > 0.5).astype(jnp.int8), jnp.int8(_MASKED))
    return {_SCORES: outcome.logits.astype(jnp.float32), _LABELS: labels}


def _scores(outcome: Outcome) -> Sums:
    if not outcome.several_labels:
        return {}
    classes = outcome.logits.shape[-1]
    position = (outcome.logits.astype(jnp.float32) + RANGE) * (BINS / (2 * RANGE))
    # Clipping keeps NaN, and its bin would be any: it counts as the lowest.
    bins = jnp.nan_to_num(position).clip(0, BINS - 1).astype(jnp.int32)
    nothing = jnp.zeros((classes, BINS), jnp.int32)
    columns = jnp.arange(classes)[None]
    true, counts = outcome.label > 0.5, outcome.mask[:, None]
    return {
        "positive_scores": nothing.at[columns, bins].add((true & counts).astype(jnp.int32)),
        "negative_scores": nothing.at[columns, bins].add((~true & counts).astype(jnp.int32)),
    }


def f1(total: Mapping[str, np.ndarray]) -> Float[np.ndarray, " classes"]:
    """Returns F1 of each class; NaN for one that no image has and none was said to have."""
    return _f1(total["true_positives"], total["false_positives"], total["false_negatives"])


def precision(total: Mapping[str, np.ndarray]) -> Float[np.ndarray, " classes"]:
    """Returns the share of each class's positives that are true; NaN where there were none."""
    return _share(total["true_positives"], total["true_positives"] + total["false_positives"])


def recall(total: Mapping[str, np.ndarray]) -> Float[np.ndarray, " classes"]:
    """Returns the share of each class's images that were found; NaN where there are none."""
    return _share(total["true_positives"], total["true_positives"] + total["false_negatives"])


def average_precision(total: Mapping[str, np.ndarray]) -> Float[np.ndarray, " classes"]:
    """Returns the average precision of each class, exact where all scores were kept; NaN for one that no image has."""
    if _SCORES in total:
        scores, labels = total[_SCORES], total[_LABELS]
        columns = range(labels.shape[1])
        return np.array(
            [_exactly(scores[counts, i], labels[counts, i]) for i in columns for counts in [labels[:, i] >= 0]]
        )
    # From the highest score down: how many of either kind lie in this bin and above.
    true = total["positive_scores"][:, ::-1].cumsum(1)
    false = total["negative_scores"][:, ::-1].cumsum(1)
    steps = np.diff(true, axis=1, prepend=0)
    summed = (steps * true / np.maximum(true + false, 1)).sum(1)
    return _share(summed, true[:, -1])


def _exactly(scores: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> float:
    """Returns the average precision of one class."""
    order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")
    ordered, true = scores[order], labels[order].cumsum()
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # the last of each run of equal scores
    if not len(labels) or not true[-1]:
        return float("nan")
    return float((np.diff(true[ends], prepend=0) * true[ends] / (ends + 1)).sum() / true[-1])


def _label_accuracy(total: Mapping[str, np.ndarray]) -> dict[str, float | int]:
    return ratio("label_correct", "label_count", name="label_accuracy")(total) if "label_count" in total else {}


def _hamming_loss(total: Mapping[str, np.ndarray]) -> dict[str, float | int]:
    found = _label_accuracy(total)
    return {"hamming_loss": 1 - found["label_accuracy"]} if found else {}


def _f1_figures(total: Mapping[str, np.ndarray], suffix: str = "") -> dict[str, float | int]:
    names = [f"{name}{suffix}" for name in ("true_positives", "false_positives", "false_negatives")]
    if names[0] not in total:
        return {}
    true, false, missed = (total[name] for name in names)
    together = _f1(*(np.asarray(x.sum()) for x in (true, false, missed)))
    return {f"macro_f1{suffix}": _mean(_f1(true, false, missed)), f"micro_f1{suffix}": float(together)}


def _mean_average_precision(total: Mapping[str, np.ndarray]) -> dict[str, float | int]:
    if "positive_scores" not in total:
        return {}
    return {"mean_average_precision": _mean(average_precision(total))}


def _f1(
    true: Int[np.ndarray, "*n"], false: Int[np.ndarray, "*n"], missed: Int[np.ndarray, "*n"]
) -> Float[np.ndarray, "*n"]:
    return _share(2 * true, 2 * true + false + missed)


def _share(numerator: Any, denominator: Any) -> Float[np.ndarray, "*n"]:
    return np.asarray(np.asarray(numerator, np.float64) / np.where(denominator == 0, np.nan, denominator))


def _mean(values: Float[np.ndarray, " n"]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


LABEL_ACCURACY = Metric(_decisions, _label_accuracy)
HAMMING_LOSS = Metric(_decisions, _hamming_loss)
F1 = Metric(_confusion, _f1_figures)
F1_AT_HALF = Metric(_confusion_at_half, lambda total: _f1_figures(total, _AT_HALF))
MEAN_AVERAGE_PRECISION = Metric(_scores, _mean_average_precision)
SCORES = Metric(_all_scores, lambda total: {})  # makes the average precision exact; in memory, of all examples
