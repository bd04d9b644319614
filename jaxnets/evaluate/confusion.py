"""Which classes are taken for which: the matrix, its order, and the pairs that are confused most."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int32, Int64

_ORDERED = 250  # classes, up to which neighbouring ones are also ordered within the tree


def confusion(
    labels: Int32[np.ndarray, " n"], said: Int32[np.ndarray, " n"], classes: int
) -> Int64[np.ndarray, "classes classes"]:
    """Returns how many images of each class (rows) were said to be of each (columns)."""
    cells = labels.astype(np.int64) * classes + said
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


class Shares(NamedTuple):
    """Of each class; NaN where there is nothing that it could be the share of."""

    precision: Float64[np.ndarray, " classes"]
    recall: Float64[np.ndarray, " classes"]
    f1: Float64[np.ndarray, " classes"]
    support: Int64[np.ndarray, " classes"]


def shares(matrix: Int64[np.ndarray, "classes classes"]) -> Shares:
    """Returns precision, recall and F1 = 2 TP / (2 TP + FP + FN) of each class, and how many images have it."""
    right, support, said = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    return Shares(_share(right, said), _share(right, support), _share(2 * right, support + said), support)


def averages(found: Shares, micro: float, there: np.ndarray) -> dict[str, float]:
    """Returns the means of precision, recall and F1 as scikit-learn has them, with what is undefined as 0.

    Args:
        found: of each class.
        micro: of all answers together: the accuracy, which all three are.
        there: bool, of each class whether images have it or were said to have it; the others are left out of "macro".
    """
    weights = found.support / max(found.support.sum(), 1)
    means = {}
    for key, values in (("precision", found.precision), ("recall", found.recall), ("f1", found.f1)):
        known = np.nan_to_num(values)
        means[f"macro_{key}"] = float(known[there].mean()) if there.any() else float("nan")
        means[f"micro_{key}"] = micro
        means[f"weighted_{key}"] = float((weights * known).sum())
    return means


def matthews(matrix: Int64[np.ndarray, "classes classes"]) -> float:
    """Returns Matthews' correlation coefficient of several classes (Gorodkin 2004), 0 where it is undefined.

    scikit-learn's `matthews_corrcoef`.
    """
    # Python's integers: the products of large counts do not fit 64 bits.
    total, right = int(matrix.sum()), int(matrix.trace())
    support, said = ([int(x) for x in matrix.sum(axis)] for axis in (1, 0))
    both = sum(a * b for a, b in zip(support, said, strict=True))
    varied = [total**2 - sum(x * x for x in side) for side in (support, said)]
    if not all(varied):
        return 0.0
    return float((right * total - both) / (varied[0] ** 0.5 * varied[1] ** 0.5))


@dataclass(frozen=True)
class Pair:
    true: int
    said: int
    count: int
    share: float  # of the images of the true class


def worst_pairs(matrix: Int64[np.ndarray, "classes classes"], most: int) -> list[Pair]:
    """Returns the pairs of classes that are confused most often, and of equally many those of the rarer class."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    support = np.maximum(matrix.sum(1), 1)
    rows, columns = np.nonzero(wrong)
    counts = wrong[rows, columns]
    order = np.lexsort((columns, rows, -counts / support[rows], -counts))[:most]
    return [
        Pair(int(i), int(j), int(wrong[i, j]), float(wrong[i, j] / support[i]))
        for i, j in zip(rows[order].tolist(), columns[order].tolist(), strict=True)
    ]


def clustered(matrix: Int64[np.ndarray, "classes classes"]) -> Int64[np.ndarray, " classes"]:
    """Returns an order of the classes in which those that are confused lie side by side.

    It is that of the leaves of a tree by average linkage, in which two classes are the nearer the larger the share of
    their images that is taken for the other.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    classes = len(matrix)
    if classes < 3:
        return np.arange(classes)
    rates = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    mutual = (rates + rates.T) / 2
    distance = 1 - mutual
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=classes <= _ORDERED)
    return leaves_list(tree).astype(np.int64)


def _share(part: np.ndarray, whole: np.ndarray) -> Float64[np.ndarray, " classes"]:
    return part / np.where(whole == 0, np.nan, whole)
