"""Accuracy in which every class counts the same."""

from collections.abc import Mapping

import numpy as np

from jaxnets.metrics.classification import CLASSES
from jaxnets.metrics.metric import Metric


def _balanced_accuracy(total: Mapping[str, np.ndarray]) -> dict[str, float | int]:
    """Returns the mean over the classes that have examples of the share of theirs that was right (mean recall).

    Nothing where an image may have several labels: whoever answers with all of them recalls all.
    """
    if "class_count" not in total:
        return {}
    seen = total["class_count"] > 0
    shares = total["class_correct"][seen] / total["class_count"][seen]
    return {"balanced_accuracy": float(shares.mean()) if seen.any() else float("nan")}


BALANCED_ACCURACY = Metric(CLASSES.sums, _balanced_accuracy)
