"""What needs no threshold: the area under the ROC curve, and average precision, of each class against the rest.

They are scikit-learn's `roc_auc_score` and `average_precision_score`, from one sort of each class's scores where those
take several: of 50,000 images in 1,000 classes they would take minutes.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int32


class Ranking(NamedTuple):
    roc_auc: Float64[np.ndarray, " classes"]  # NaN for a class that all images have, or none
    average_precision: Float64[np.ndarray, " classes"]  # NaN for a class that no image has


def one_against_rest(
    scores: Float[np.ndarray, "n classes"], labels: Int32[np.ndarray, " n"] | Bool[np.ndarray, "n classes"]
) -> Ranking:
    """Returns both of each class.

    Args:
        scores: the higher, the more the image is of the class.
        labels: the class of each image, or those that it has.
    """
    classes = scores.shape[1]
    found = np.full((2, classes), np.nan)
    members = _members(labels, classes)
    for number in range(classes):
        found[:, number] = rank(np.sort(scores[:, number]), np.sort(scores[members[number], number]))
    return Ranking(*found)


def rank(everything: Float[np.ndarray, " n"], positive: Float[np.ndarray, " m"]) -> tuple[float, float]:
    """Returns area and average precision from the ascending scores of all images and of those of the class.

    The area is the chance that an image of the class has a higher score than another, equal ones counting half (Hanley
    & McNeil 1982). Average precision is Σ (Rₙ − Rₙ₋₁) Pₙ over falling scores, equal ones taken together.
    """
    n, m = len(everything), len(positive)
    if not m:
        return np.nan, np.nan
    below, own_below = everything.searchsorted(positive), positive.searchsorted(positive)
    above, own_above = (x.searchsorted(positive, "right") for x in (everything, positive))
    precision = float(((m - own_below) / (n - below)).mean())
    if n == m:
        return np.nan, precision
    lower = (below - own_below).sum()
    equal = (above - below).sum() - (own_above - own_below).sum()
    return float((lower + equal / 2) / (m * (n - m))), precision


class Curves(NamedTuple):
    """What a falling threshold comes to, from where nothing is said to be of the class to where all is."""

    false: Float64[np.ndarray, " m"]  # share of the others that are said to be of it
    true: Float64[np.ndarray, " m"]  # share of its own: recall
    precision: Float64[np.ndarray, " m"]


def curves(has: Bool[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> Curves:
    """Returns the points of the ROC curve and of precision against recall, equal scores taken together.

    scikit-learn's `roc_curve` and `precision_recall_curve`, whose import takes longer than all of these.

    Args:
        has: of each image, whether it is of the class: some are, and some are not.
        scores: the higher, the more it is.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    hits, said = has[order].cumsum()[ends], ends + 1
    positive = int(has.sum())
    return Curves(
        false=np.append(0.0, (said - hits) / (len(has) - positive)),
        true=np.append(0.0, hits / positive),
        precision=np.append(1.0, hits / said),
    )


def _members(labels: np.ndarray, classes: int) -> list[np.ndarray]:
    """Returns the images of each class."""
    if labels.ndim == 2:
        return [np.flatnonzero(labels[:, number]) for number in range(classes)]
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.searchsorted(labels[order], np.arange(1, classes)))
