"""Labels that look wrong: what an image's neighbours are called, and what a linear model of all others says."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float16, Float32, Int32, Int64

_NEIGHBOURS = 20
_SHARPNESS = 0.07  # of the votes: a neighbour that is nearer by this cosine has e times the weight
_ROWS = 512  # images compared with all others at a time
_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # shares of the mean eigenvalue, of which the best is taken
_VOTES = 0.6  # share of the neighbours' votes that accuses
_MARGIN = 0.25  # of the linear model, between the other class and the image's own
_TRUSTED = 0.5  # share of a class's images that both must find in it for their word against its label to count


@dataclass(frozen=True, kw_only=True)
class Suspicions:
    """Images whose label looks wrong, the most suspicious first."""

    example: Int64[np.ndarray, " m"]
    other: Int32[np.ndarray, " m"]  # the class that they look like
    votes: Float32[np.ndarray, " m"]  # share of the neighbours' votes for it
    accuracy: float  # share of all images that neighbours and linear model find in their class
    trusted: int  # classes in which they find enough to be believed


def suspect(
    vectors: Float16[np.ndarray, "n f"],
    label: Int32[np.ndarray, " n"],
    classes: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Suspicions:
    """Returns the images whose label both judges contradict, each judged without its own label.

    One judge is the vote of the 20 nearest images, the other a ridge regression on the vectors whose word on each image
    is that of a fit without it (in closed form: Allen's PRESS, 1974). Both must name the same other class, and have
    found at least half of the images of both classes in them.

    Args:
        vectors: embeddings of length 1.
        label: class of each.
        classes: how many there are.
        progress: is told how many images have been compared.
    """
    votes = _neighbours(vectors, label, classes, progress)
    linear = _leave_one_out(vectors, label, classes)
    n = np.arange(len(label))
    winner, linear_winner = votes.argmax(1).astype(np.int32), linear.argmax(1)
    right = (winner == label) & (linear_winner == label)
    members = np.bincount(label, minlength=classes)
    found = np.bincount(label[right], minlength=classes) / np.maximum(members, 1)
    trusted = (found >= _TRUSTED) & (members > 1)
    margin = linear[n, winner] - linear[n, label]
    accused = (
        (winner != label)
        & (winner == linear_winner)
        & (votes[n, winner] >= _VOTES)
        & (margin >= _MARGIN)
        & trusted[winner]
        & trusted[label]
    )
    at = np.flatnonzero(accused)
    at = at[np.argsort(-(votes[at, winner[at]] + margin[at]), kind="stable")]
    return Suspicions(
        example=at,
        other=winner[at],
        votes=votes[at, winner[at]],
        accuracy=float(right.mean()) if len(right) else 0.0,
        trusted=int(trusted.sum()),
    )


def _neighbours(
    vectors: np.ndarray, label: np.ndarray, classes: int, progress: Callable[[int], None]
) -> Float32[np.ndarray, "n classes"]:
    """Returns the share of the nearest images' votes for each class; nearer ones count for more."""
    n = len(label)
    k = min(_NEIGHBOURS, n - 1)
    votes = np.zeros((n, classes), np.float32)
    wide = vectors.astype(np.float32)
    for start in range(0, n, _ROWS):
        stop = min(start + _ROWS, n)
        near = wide[start:stop] @ wide.T
        near[np.arange(stop - start), np.arange(start, stop)] = -np.inf  # itself
        at = np.argpartition(-near, k - 1, axis=1)[:, :k]
        closeness = np.take_along_axis(near, at, 1)
        weight = np.exp((closeness - closeness.max(1, keepdims=True)) / _SHARPNESS)
        weight /= weight.sum(1, keepdims=True)
        np.add.at(votes, (np.arange(start, stop)[:, None], label[at]), weight)
        progress(stop)
    return votes


def _leave_one_out(vectors: np.ndarray, label: np.ndarray, classes: int) -> Float32[np.ndarray, "n classes"]:
    """Returns what a ridge regression to the classes says of each image, fitted without it.

    Each class has the same weight in it, so that a rare one is not outvoted.
    """
    wide = vectors.astype(np.float32)
    weight = (1 / np.maximum(np.bincount(label, minlength=classes), 1)[label]).astype(np.float32)
    weight *= len(label) / weight.sum()
    root = np.sqrt(weight)[:, None]
    target = np.eye(classes, dtype=np.float32)[label]
    centre, base = ((weight[:, None] * x).mean(0) for x in (wide, target))
    x = root * (wide - centre)
    y = root * (target - base)
    values, directions = np.linalg.eigh(x.T @ x)
    values = np.maximum(values, 0)
    z = x @ directions
    product = z.T @ y
    best, least = target, np.inf
    for ridge in _RIDGES:
        shrunk = values + ridge * values.mean() + 1e-9
        fitted = z @ (product / shrunk[:, None])
        leverage = np.minimum((z * z / shrunk).sum(1) + weight / len(label), 0.999)[:, None]
        without = (fitted - leverage * y) / (1 - leverage)
        error = float(((without - y) ** 2).sum())
        if error < least:
            best, least = without / root + base, error
    return best
