"""Tests of whether two samples of numbers, or of classes, are of one distribution, and how far they are apart."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

_FEW = 5  # images that a class has by expectation in either sample, below which it is counted with others like it
_BINS = 10


class Outcome(NamedTuple):
    """What a test says."""

    statistic: float
    p: float  # probability of a statistic as large if nothing has changed
    effect: float  # how large the difference is, 0…1, whatever the number of images


class Distances(NamedTuple):
    psi: float  # population stability index: below 0.1 little, above 0.25 much, by the usual rule of thumb
    wasserstein: float  # in standard deviations of the reference; in its unit where that has none


def kolmogorov_smirnov(reference: Float[np.ndarray, " m"], window: Float[np.ndarray, " n"]) -> Outcome:
    """Returns the two-sample test of Kolmogorov and Smirnov; the effect is the largest gap of the two distributions.

    Its probability is that of continuous values: with ties it is too large, never too small.
    """
    from scipy.stats import ks_2samp

    found = ks_2samp(reference, window, method="asymp")
    return Outcome(float(found.statistic), float(found.pvalue), float(found.statistic))


def distances(reference: Float[np.ndarray, " m"], window: Float[np.ndarray, " n"]) -> Distances:
    """Returns how far a window's values are from the reference's."""
    from scipy.stats import wasserstein_distance

    deviation = float(reference.std())
    return Distances(
        psi=stability_index(reference, window),
        wasserstein=float(wasserstein_distance(reference, window)) / (deviation if deviation > 0 else 1.0),
    )


def stability_index(reference: Float[np.ndarray, " m"], window: Float[np.ndarray, " n"]) -> float:
    """Returns the population stability index over tenths of the reference: Σ (q − p) ln(q / p) of its bins' shares.

    Half an image is added to each bin, so that an empty one does not make it infinite. Where many values are equal
    there are fewer bins; where all are, these are below, at and above.
    """
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, _BINS + 1)[1:-1]))
    if len(edges) == 1:
        edges = np.array([edges[0], np.nextafter(edges[0], np.inf)])
    counts = [np.bincount(np.searchsorted(edges, x, "right"), minlength=len(edges) + 1) for x in (reference, window)]
    return _index(*counts)


def class_index(reference: Int[np.ndarray, " k"], window: Int[np.ndarray, " k"]) -> float:
    """Returns the population stability index of the number of images of each class."""
    return _index(reference, window)


def _index(reference: Int[np.ndarray, " k"], window: Int[np.ndarray, " k"]) -> float:
    p, q = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (reference, window))
    return float(((q - p) * np.log(q / p)).sum())


def chi_squared(reference: Int[np.ndarray, " k"], window: Int[np.ndarray, " k"]) -> Outcome | None:
    """Returns Pearson's test of whether two samples have the same shares of classes; None where one class has all.

    Classes of fewer than 5 images by expectation, in either sample, are counted as one. The effect is the total
    variation: the share of the images that would have to be of another class.

    Args:
        reference: images of each class.
        window: likewise.
    """
    from scipy.stats import chi2_contingency

    table = np.stack([reference, window]).astype(np.float64)
    least = table.sum(1).min() / max(table.sum(), 1) * table.sum(0)
    rare = least < _FEW
    merged = np.concatenate([table[:, ~rare], table[:, rare].sum(1, keepdims=True)], 1)
    merged = merged[:, merged.sum(0) > 0]
    if merged.shape[1] < 2 or (merged.sum(1) == 0).any():
        return None
    found = chi2_contingency(merged, correction=False)
    shares = merged / merged.sum(1, keepdims=True)
    return Outcome(float(found.statistic), float(found.pvalue), float(np.abs(shares[0] - shares[1]).sum() / 2))
