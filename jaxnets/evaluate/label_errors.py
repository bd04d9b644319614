"""Labels that a model's answers to images it was not trained on make doubtful: confident learning.

Northcutt et al. 2021, "Confident learning: estimating uncertainty in dataset labels", as cleanlab's
`find_label_issues(filter_by="confident_learning", return_indices_ranked_by="normalized_margin")`: a class is claimed
by an image where its probability is at least what it is on average for the images that are labelled so. An image is
suspected where the most probable of the classes that claim it is not its label. With several labels per image each
class is a question of its own, with yes and no as its labels.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

_ROWS = 4096  # images looked at at a time


class Suspects(NamedTuple):
    """Images whose label is doubtful, the most doubtful first."""

    example: Int64[np.ndarray, " m"]
    label: Int32[np.ndarray, " m"]  # that is doubted: the image's, or one of several, which it has or has not
    other: Int32[np.ndarray, " m"]  # what it may be instead; of several labels the same as `label`
    margin: Float32[np.ndarray, " m"]  # how much more probable that is, 0 … 1


def suspects(probabilities: Float32[np.ndarray, "n classes"], labels: Int32[np.ndarray, " n"]) -> Suspects:
    """Returns the images whose one label is doubtful."""
    n, classes = probabilities.shape
    own = probabilities[np.arange(n), labels]
    usual = _means(labels, own, classes)
    found = []
    for start in range(0, n, _ROWS):
        rows = probabilities[start : start + _ROWS]
        claimed = np.where(rows >= usual, rows, -1)
        best = claimed.argmax(1)
        at = np.flatnonzero((claimed[np.arange(len(rows)), best] >= 0) & (best != labels[start : start + len(rows)]))
        margin = rows[at, best[at]] - own[start + at]
        # What claims an image beside its own label is less probable than that at times: no reason for doubt.
        found.append((start + at[margin > 0], best[at[margin > 0]], margin[margin > 0]))
    example, other, margin = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return _sorted(example, labels[example], other, margin)


def suspects_of_several(
    probabilities: Float32[np.ndarray, "n classes"], labels: Bool[np.ndarray, "n classes"]
) -> Suspects:
    """Returns the images of which a label is doubtful that they have, or have not."""
    found = []
    for number in range(labels.shape[1]):
        yes, has = probabilities[:, number], labels[:, number]
        if not has.any() or has.all():
            continue
        accused = np.where(has, (1 - yes >= 1 - yes[~has].mean()) & (yes < 0.5), (yes >= yes[has].mean()) & (yes > 0.5))
        at = np.flatnonzero(accused)
        found.append((at, np.full(len(at), number), np.abs(2 * yes[at] - 1)))
    if not found:
        nothing = np.zeros(0, np.int64)
        return _sorted(nothing, nothing, nothing, nothing.astype(np.float32))
    example, label, margin = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return _sorted(example, label, label, margin)


def _means(labels: np.ndarray, own: np.ndarray, classes: int) -> np.ndarray:
    """Returns the mean probability of each class over the images labelled so; one that none has is never claimed."""
    count = np.bincount(labels, minlength=classes)
    with np.errstate(invalid="ignore"):
        means = np.bincount(labels, own, classes) / count
    return np.where(count > 0, means, np.inf).astype(own.dtype)


def _sorted(example: np.ndarray, label: np.ndarray, other: np.ndarray, margin: np.ndarray) -> Suspects:
    order = np.argsort(-margin, kind="stable")
    return Suspects(
        example[order].astype(np.int64),
        label[order].astype(np.int32),
        other[order].astype(np.int32),
        margin[order].astype(np.float32),
    )
