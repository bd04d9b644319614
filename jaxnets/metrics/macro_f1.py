"""F1 in which every class counts the same."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from jaxnets.metrics.classification import CLASSES
from jaxnets.metrics.metric import Metric, Outcome, Sums


def _sums(outcome: Outcome) -> Sums:
    if outcome.several_labels:
        return {}
    said, nothing = jnp.argmax(outcome.logits, -1), jnp.zeros(outcome.logits.shape[-1], jnp.int32)
    return {**CLASSES.sums(outcome), "class_said": nothing.at[said].add(outcome.mask.astype(jnp.int32))}


def _macro_f1(total: Mapping[str, np.ndarray]) -> dict[str, float | int]:
    """Returns the mean over the classes of F1 = 2 TP / (2 TP + FP + FN), as scikit-learn's `f1_score(average="macro")`.

    A class without examples that was answered counts as 0; one that was not answered either is left out.
    """
    if "class_said" not in total:
        return {}
    both = total["class_count"] + total["class_said"]  # 2 TP + FP + FN
    known = both > 0
    f1 = 2 * total["class_correct"][known] / both[known]
    return {"macro_f1": float(f1.mean()) if known.any() else float("nan")}


MACRO_F1 = Metric(_sums, _macro_f1)
