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

_ROWS = 2048  # images at a time, in float64


def fit_quantile(
    probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"], coverage: float
) -> float:
    """Returns q so that the classes of probability ≥ 1 − q hold the right one in a share `coverage` of images.

    It is the ⌈(n + 1) · coverage⌉-th smallest of the scores 1 − p(label), half-way to the next larger, so that another
    engine's last digits do not decide.

    Raises:
        UserError: if there are too few images for that coverage.
    """
    scores = np.sort(_scores(np.take_along_axis(probabilities, labels[:, None].astype(np.int64), 1)[:, 0]))
    n = len(scores)
    rank = _rank(n, coverage)
    if rank > n:
        needed = math.ceil(coverage / (1 - coverage) - 1e-6)
        raise UserError(
            f"sets of coverage {coverage:g} need at least {needed} held-out images, and there are {n}: hold more "
            f"out (--config.data.validation), or ask for at most {n / (n + 1):.4f}"
        )
    own = scores[rank - 1]
    larger = scores[np.searchsorted(scores, own, side="right") :]  # of equal scores all are within, or none
    return float((own + larger[0]) / 2 if len(larger) else own)


def expected(held_out: int, coverage: float, images: int) -> tuple[float, float]:
    """Returns between which shares the coverage of new images lies with 95 % probability, if they are like the old.

    A quantile of n images is a sample too: the share that it covers of all images there are follows the distribution
    Beta(k, n + 1 − k) with k = ⌈(n + 1) · coverage⌉ (Vovk 2012, proposition 2a; Angelopoulos & Bates 2021, section
    3.2), and how many of m new ones it covers the beta-binomial one. Sets that would be empty hold a class all the
    same, which can only add to it.

    Args:
        held_out: images that the quantile was chosen on, n.
        coverage: that was wanted.
        images: that are new, m.
    """
    from scipy.special import betaln

    k = _rank(held_out, coverage)
    hits = np.arange(images + 1)
    choose = -betaln(hits + 1, images - hits + 1) - math.log(images + 1)
    log_p = choose + betaln(hits + k, images - hits + held_out + 1 - k) - betaln(k, held_out + 1 - k)
    below = np.cumsum(np.exp(log_p))
    low, high = (int(np.searchsorted(below, tail).clip(0, images)) for tail in (0.025, 0.975))
    return low / images, high / images


def prediction_set(row: Float[np.ndarray, " classes"], quantile: float) -> list[int]:
    """Returns the numbers of the classes in the set of one image, the most probable first; never none."""
    order = np.argsort(-row, kind="stable")
    count = int((_scores(row[order]) <= quantile).sum())
    return order[: max(count, 1)].tolist()


def sizes_and_hits(
    probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"], quantile: float
) -> tuple[Int[np.ndarray, " n"], np.ndarray]:
    """Returns of each image how large its set is, and whether the right class is in it."""
    inside = np.empty(probabilities.shape, bool)
    for start in range(0, len(inside), _ROWS):
        inside[start : start + _ROWS] = _scores(probabilities[start : start + _ROWS]) <= quantile
    inside[np.arange(len(inside)), probabilities.argmax(1)] = True
    return inside.sum(1), np.take_along_axis(inside, labels[:, None].astype(np.int64), 1)[:, 0]


def _scores(probabilities: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Returns 1 − p in float64: in float32 what is as improbable as the last one covered would at times be left out."""
    return 1 - probabilities.astype(np.float64)


def _rank(count: int, coverage: float) -> int:
    """Returns ⌈(count + 1) · coverage⌉ of a share that decimals may have rounded up."""
    return math.ceil((count + 1) * coverage - 1e-9)
