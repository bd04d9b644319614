"""Loss, accuracy, the best five, and each class by itself.

Where an image may have several labels, accuracy is the share of images whose labels are all right and have no other
beside them (subset accuracy, as in scikit-learn); what else is measured then is in `several_labels`.
"""

import jax
import jax.numpy as jnp

from jaxnets.metrics.metric import Metric, Outcome, Sums, ratio

_TOP5_CLASSES = 6  # with fewer classes, the best five say nothing


def _count(outcome: Outcome) -> Sums:
    return {"count": outcome.mask.sum(dtype=jnp.int32)}


def _loss(outcome: Outcome) -> Sums:
    return {**_count(outcome), "loss": jnp.where(outcome.mask, outcome.loss, 0).sum()}


def _correct(outcome: Outcome) -> jax.Array:
    if outcome.several_labels:
        return outcome.mask & (outcome.decisions == (outcome.label > 0.5)).all(-1)
    return outcome.mask & (jnp.argmax(outcome.logits, -1).astype(jnp.int32) == outcome.label)


def _accuracy(outcome: Outcome) -> Sums:
    return {**_count(outcome), "correct": _correct(outcome).sum(dtype=jnp.int32)}


def _top5(outcome: Outcome) -> Sums:
    if outcome.several_labels or outcome.logits.shape[-1] < _TOP5_CLASSES:
        return {}
    best = jax.lax.top_k(outcome.logits, 5)[1]
    within = outcome.mask & (best == outcome.label[:, None]).any(-1)
    return {**_count(outcome), "top5": within.sum(dtype=jnp.int32)}


def _classes(outcome: Outcome) -> Sums:
    if outcome.several_labels:
        return {}
    nothing = jnp.zeros(outcome.logits.shape[-1], jnp.int32)
    return {
        "class_count": nothing.at[outcome.label].add(outcome.mask.astype(jnp.int32)),
        "class_correct": nothing.at[outcome.label].add(_correct(outcome).astype(jnp.int32)),
    }


COUNT = Metric(_count, lambda total: {"count": int(total["count"])})
LOSS = Metric(_loss, ratio("loss", "count", name="loss"))
ACCURACY = Metric(_accuracy, ratio("correct", "count", name="accuracy"))
TOP5 = Metric(_top5, lambda total: ratio("top5", "count", name="top5")(total) if "top5" in total else {})
CLASSES = Metric(_classes, lambda total: {})  # for reports, which show each class
