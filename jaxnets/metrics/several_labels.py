"""What is measured where an image may have several labels: each class is a question of its own, yes or no.

Decisions are taken at a probability of one half. Precision is the share of right ones among what was answered with yes,
recall among what is a yes, F1 their harmonic mean: 2 TP / (2 TP + FP + FN) of true and false positives and false
negatives. Micro F1 is that of all questions together; macro F1 the mean over the classes, each counting the same.

Average precision does without a threshold: Σ (Rₙ − Rₙ₋₁) Pₙ over falling scores, as scikit-learn's
`average_precision_score`, which counts equal scores as one. It needs the order of all scores; so that it adds up over
batches, scores are counted in bins, and what lies in one is equal. The mean is over the classes that have examples.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxnets.metrics.metric import Metric, Outcome, Sums, ratio

_BINS = 400  # of logits,
_RANGE = 10.0  # from minus this to this: 0.05 each


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


def _scores(outcome: Outcome) -> Sums:
    if not outcome.several_labels:
        return {}
    classes = outcome.logits.shape[-1]
    position = (outcome.logits.astype(jnp.float32) + _RANGE) * (_BINS / (2 * _RANGE))
    # Clipping keeps NaN, and its bin would be any: it counts as the lowest.
    bins = jnp.nan_to_num(position).clip(0, _BINS - 1).astype(jnp.int32)
    nothing = jnp.zeros((classes, _BINS), jnp.int32)
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
    """Returns the average precision of each class; NaN for one that no image has."""
    # From the highest score down: how many of either kind lie in this bin and above.
    true = total["positive_scores"][:, ::-1].cumsum(1)
    false = total["negative_scores"][:, ::-1].cumsum(1)
    steps = np.diff(true, axis=1, prepend=0)
    summed = (steps * true / np.maximum(true + false, 1)).sum(1)
    return _share(summed, true[:, -1])


def _f1_figures(total: Mapping[str, np.ndarray]) -> dict[str, float | int]:
    if "true_positives" not in total:
        return {}
    together = [np.asarray(total[name].sum()) for name in ("true_positives", "false_positives", "false_negatives")]
    return {"macro_f1": _mean(f1(total)), "micro_f1": float(_f1(*together))}


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


LABEL_ACCURACY = Metric(
    _decisions,
    lambda total: ratio("label_correct", "label_count", name="label_accuracy")(total) if "label_count" in total else {},
)
F1 = Metric(_confusion, _f1_figures)
MEAN_AVERAGE_PRECISION = Metric(_scores, _mean_average_precision)
