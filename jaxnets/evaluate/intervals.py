"""How far a share may be from what it would be on all images of the kind."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

CONFIDENCE = 0.95
QUANTILE = 1.959963984540054  # of the normal distribution, that leaves 2.5 % above it
_SAMPLES, _SEED = 2000, 0  # the same for the same images, whoever asks
_AT_A_TIME = 2_000_000  # groups drawn, over all samples


class Interval(NamedTuple):
    low: float
    high: float


def wilson(successes: int, count: int) -> Interval:
    """Returns the 95 % score interval of a share (Wilson 1927; Brown et al. 2001, equation 4); NaN of nothing.

    It stays within 0 and 1, and is not empty where all or none succeeded.
    """
    if not count:
        return Interval(math.nan, math.nan)
    share, z2 = successes / count, QUANTILE**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = QUANTILE / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    low = 0.0 if successes == 0 else max(middle - half, 0.0)  # not a rounding below
    return Interval(low, 1.0 if successes == count else min(middle + half, 1.0))


def bootstrap_by_group(values: Float64[np.ndarray, " n"], groups: np.ndarray) -> Interval:
    """Returns the 95 % percentile interval of a mean, from 2,000 samples of whole groups drawn with replacement.

    Images of one group are alike, and say less than as many of different ones: an interval that takes each for a draw
    of its own is too narrow (the cluster bootstrap; Field & Welsh 2007).
    """
    _, of = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(of, values), np.bincount(of)
    means = resampled(lambda drawn: sums[drawn].sum(1) / sizes[drawn].sum(1), len(sizes))
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))


def resampled(
    statistic: Callable[[Int64[np.ndarray, "samples count"]], Float64[np.ndarray, " samples"]], count: int
) -> Float64[np.ndarray, " all"]:
    """Returns a statistic of 2,000 samples of `count` numbers below `count`, drawn with replacement."""
    random = np.random.default_rng(_SEED)
    at_once = max(min(_AT_A_TIME // max(count, 1), _SAMPLES), 1)
    left, found = _SAMPLES, []
    while left:
        found.append(statistic(random.integers(0, count, (min(at_once, left), count))))
        left -= len(found[-1])
    return np.concatenate(found)


def share_interval(right: Bool[np.ndarray, " n"], groups: np.ndarray | None) -> dict[str, Any]:
    """Returns the interval of a share of images as metrics.json holds it: by group where a group has several images."""
    count = 0 if groups is None else len(np.unique(groups))
    if groups is None or count in (1, len(groups)):
        return {"confidence": CONFIDENCE, "method": "wilson", **wilson(int(right.sum()), len(right))._asdict()}
    interval = bootstrap_by_group(right.astype(np.float64), groups)
    return {"confidence": CONFIDENCE, "method": "bootstrap by group", "groups": count, **interval._asdict()}
