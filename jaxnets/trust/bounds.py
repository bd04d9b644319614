"""Bounds that are chosen on held-out images: of a confidence for a precision or a coverage, and of a score's quantile.

A precision on a few hundred images is a sample of the precision that is wanted. What is chosen here holds with
CONFIDENCE for images like the held-out ones, by the exact binomial bound (Clopper & Pearson 1934).
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxnets.errors import UserError

CONFIDENCE = 0.95  # with which a precision is promised
_EDGE = 0.01  # of what lies between median and largest: how far a bound lies beyond the largest


class Chosen(NamedTuple):
    """A bound of confidences, and what it comes to on the images that it was chosen on."""

    bound: float  # below it there is no answer
    answered: int  # images
    right: int  # of those
    at_least: float  # the precision that is promised with CONFIDENCE


def interval(right: int, count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Returns the two-sided interval of a share (Clopper & Pearson 1934): 0 and 1 where nothing was counted."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = float(betaincinv(right, count - right + 1, tail)) if right else 0.0
    high = float(betaincinv(right + 1, count - right, 1 - tail)) if right < count else 1.0
    return low, high


def at_least(right: int, count: int, risk: float = 1 - CONFIDENCE) -> float:
    """Returns what a share is at least, but for a probability of `risk`: the one-sided bound of the same."""
    from scipy.special import betaincinv

    return float(betaincinv(right, count - right + 1, risk)) if right else 0.0


def for_precision(confidences: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], precision: float) -> Chosen:
    """Returns the confidence from which on answers have at least a precision, with as many answers as can be.

    Half of 1 − CONFIDENCE is the risk that is taken with answering all images, which is tried first: with few images,
    where the search below has no power, a good model needs no bound. The other half is for Geifman & El-Yaniv 2017,
    "Selective classification for deep neural networks", algorithm 1: a binary search over the number of answers, in
    which each of the ⌈log₂ n⌉ + 1 bounds that are tried may be wrong with an equal share of it. So the promise holds
    for the one that was chosen by looking, where a bound that is tried as if it were the only one would be too good.

    Args:
        confidences: the probability of each image's answer.
        right: whether that answer is right.
        precision: share of the answers that should be right, between 0 and 1.

    Raises:
        UserError: if no bound has it for sure; it says which precision could be promised.
    """
    order = np.argsort(-confidences, kind="stable")
    sorted_, hits = confidences[order], np.cumsum(right[order])
    n = len(sorted_)
    half = (1 - CONFIDENCE) / 2
    needed = math.ceil(math.log(half) / math.log(precision))
    if n < needed:
        raise UserError(
            f"a precision of {precision:g} cannot be promised from {n} held-out images: at least {needed} are needed, "
            f"even if all are right. Hold more out (--config.data.validation), or ask for less"
        )
    everything = Chosen(0.0, n, int(hits[-1]), at_least(int(hits[-1]), n, half))
    if everything.at_least >= precision:
        return everything
    risk = half / (math.ceil(math.log2(max(n, 2))) + 1)
    low, high = 0, n  # images that may be answered; more than can be
    best: Chosen | None = None
    seen = [everything]
    while low < high:
        middle = (low + high + 1) // 2
        count = int(np.searchsorted(-sorted_, -sorted_[middle - 1], side="right"))  # with all of equal confidence
        hit = int(hits[count - 1])
        seen.append(Chosen(_below(sorted_, count), count, hit, at_least(hit, count, risk)))
        if seen[-1].at_least >= precision:
            low, best = middle, seen[-1]
        else:
            high = middle - 1
    if best is None:
        most = max(seen, key=lambda tried: tried.at_least)
        raise UserError(
            f"a precision of {precision:g} cannot be promised: of the {most.answered} surest of {n} held-out images "
            f"{most.right} are right, which promises {math.floor(1000 * most.at_least) / 1000:g} with "
            f"{CONFIDENCE:.0%} confidence. Ask for that or less, hold more images out (--config.data.validation), or "
            "train a better model"
        )
    return best


def for_coverage(
    confidences: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], coverage: float, count: int | None = None
) -> Chosen:
    """Returns the confidence from which on a share `coverage` of images like these is answered, on the average.

    It is an order statistic: of n images and one more, each is as likely as another to be the k-th surest, so that
    ⌈(n + 1) · coverage⌉ of n cover a new one with at least that probability.

    Args:
        confidences: of the images that may be answered at all.
        right: whether the answers are right.
        coverage: between 0 and 1.
        count: of all images, where some were refused before; None: there are no others.

    Raises:
        UserError: if fewer may be answered than are wanted.
    """
    order = np.argsort(-confidences, kind="stable")
    sorted_, n = confidences[order], count or len(confidences)
    wanted = min(_rank(n, coverage), n)
    if wanted > len(sorted_):
        raise UserError(
            f"a coverage of {coverage:g} cannot be reached: of {n} held-out images {n - len(sorted_)} are refused as "
            f"unlike the training images. Ask for at most {len(sorted_) / (n + 1):.3f}, or for --familiar nearer to 1"
        )
    answered = int(np.searchsorted(-sorted_, -sorted_[wanted - 1], side="right"))
    hit = int(right[order][:answered].sum())
    return Chosen(_below(sorted_, answered), answered, hit, at_least(hit, answered))


def upper(scores: Float[np.ndarray, " n"], share: float) -> float:
    """Returns what a share of images like these does not exceed, on the average; beyond all where n is too few.

    It is the ⌈(n + 1) · share⌉-th smallest, or rather half-way to the next: a score that is computed elsewhere differs
    in its last digits.
    """
    sorted_ = np.sort(np.asarray(scores, np.float64))
    rank = _rank(len(sorted_), share)
    if rank < len(sorted_):
        return float((sorted_[rank - 1] + sorted_[rank]) / 2)
    return float(sorted_[-1] + max(_EDGE * (sorted_[-1] - np.median(sorted_)), 1e-6 * abs(sorted_[-1])))


def _rank(count: int, share: float) -> int:
    """Returns ⌈(count + 1) · share⌉, at least 1, of a share that decimals may have rounded up."""
    return max(math.ceil((count + 1) * share - 1e-9), 1)


def _below(descending: Float[np.ndarray, " n"], count: int) -> float:
    """Returns a bound that the first `count` of the confidences reach and the others do not."""
    last = float(descending[count - 1])
    return (last + float(descending[count])) / 2 if count < len(descending) else max(last - 1e-4, 0.0)
