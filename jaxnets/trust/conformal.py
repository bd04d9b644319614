"""Sets of classes that hold the right one as often as is wanted: split conformal prediction.

Score and set are those of Sadinle, Lei & Wasserman 2019, "Least ambiguous set-valued classifiers with bounded error
levels" (LAC, their section 2): the smallest sets on the average of all that cover. Adaptive sets (APS; Romano, Sesia &
Candès 2020) spread their errors more evenly over images, but are larger, and exact only if a die is rolled for each
answer, which no two services would roll alike.

A set holds the most probable class in any case, so that none is empty; that can only cover more. The guarantee
(Vovk et al. 2005; Angelopoulos & Bates 2021, theorem 1) is over images like the held-out ones, all together, and not
for each class or image. A temperature that was fitted on the same images is one number, and costs of it what cannot be
seen.
"""

import math

import numpy as np
from jaxtyping import Float, Int

from jaxnets.errors import UserError


def fit_quantile(
    probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"], coverage: float
) -> float:
    """Returns q so that the classes of probability ≥ 1 − q hold the right one in a share `coverage` of images.

    It is the ⌈(n + 1) · coverage⌉-th smallest of the scores 1 − p(label), half-way to the next, so that another
    engine's last digits do not decide.

    Raises:
        UserError: if there are too few images for that coverage.
    """
    scores = np.sort(
        1 - np.take_along_axis(probabilities, labels[:, None].astype(np.int64), 1)[:, 0].astype(np.float64)
    )
    n = len(scores)
    rank = math.ceil((n + 1) * coverage - 1e-9)
    if rank > n:
        needed = math.ceil(coverage / (1 - coverage) - 1e-6)
        raise UserError(
            f"sets of coverage {coverage:g} need at least {needed} held-out images, and there are {n}: hold more "
            f"out (--config.data.validation), or ask for at most {n / (n + 1):.4f}"
        )
    return float(scores[rank - 1] if rank == n else (scores[rank - 1] + scores[rank]) / 2)


def prediction_set(row: Float[np.ndarray, " classes"], quantile: float) -> list[int]:
    """Returns the numbers of the classes in the set of one image, the most probable first; never none."""
    order = np.argsort(-row, kind="stable")
    count = int((row[order] >= 1 - quantile).sum())
    return order[: max(count, 1)].tolist()


def sizes_and_hits(
    probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"], quantile: float
) -> tuple[Int[np.ndarray, " n"], np.ndarray]:
    """Returns of each image how large its set is, and whether the right class is in it."""
    inside = probabilities >= 1 - quantile
    inside[np.arange(len(inside)), probabilities.argmax(1)] = True
    return inside.sum(1), np.take_along_axis(inside, labels[:, None].astype(np.int64), 1)[:, 0]
