"""Whether a model is as often right as it is sure: calibration, and what is gained by leaving out unsure answers."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

BINS = 15  # of confidence, as in Guo et al. 2017


@dataclass(frozen=True)
class Reliability:
    """Answers by their confidence, in bins of equal width from 0 to 1."""

    count: Int64[np.ndarray, " bins"]
    confidence: Float64[np.ndarray, " bins"]  # mean of the answers in each, NaN where there are none
    accuracy: Float64[np.ndarray, " bins"]  # share of them that is right, likewise

    @property
    def expected_error(self) -> float:
        """ECE: the mean distance of confidence and accuracy over all answers (Guo et al. 2017, equation 3)."""
        total = self.count.sum()
        return float((self.count * self._gap).sum() / total) if total else float("nan")

    @property
    def maximal_error(self) -> float:
        """MCE: the largest distance of any bin that has answers (equation 5)."""
        return float(self._gap.max()) if self.count.any() else float("nan")

    @property
    def _gap(self) -> Float64[np.ndarray, " bins"]:
        return np.where(self.count > 0, np.abs(np.nan_to_num(self.accuracy - self.confidence)), 0.0)


def reliability(confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], bins: int = BINS) -> Reliability:
    """Returns how often answers are right by their confidence; a bin has its upper border, the lowest both."""
    sums = np.zeros((3, bins))
    add(sums, confidence, right)
    return from_sums(sums)


def add(sums: Float64[np.ndarray, "3 bins"], confidence: Float[np.ndarray, " n"], right: np.ndarray) -> None:
    """Adds to the number of answers in each bin, their confidences and how many are right; for `from_sums`."""
    bins = sums.shape[1]
    wide = confidence.astype(np.float64)
    at = np.clip(np.ceil(wide * bins).astype(np.int64) - 1, 0, bins - 1)
    for row, weights in zip(sums, (None, wide, right.astype(np.float64)), strict=True):
        row += np.bincount(at, weights, bins)


def from_sums(sums: Float64[np.ndarray, "3 bins"]) -> Reliability:
    count = sums[0].astype(np.int64)
    known = np.where(count > 0, count, np.nan)
    return Reliability(count, sums[1] / known, sums[2] / known)


class Coverage(NamedTuple):
    """What accuracy there is when only the surest answers are given."""

    share: Float64[np.ndarray, " m"]  # of the images that are answered, ascending to 1
    accuracy: Float64[np.ndarray, " m"]  # of those
    confidence: Float64[np.ndarray, " m"]  # from which on they are answered

    @property
    def area(self) -> float:
        """The mean share of wrong answers over all coverages (AURC; Geifman & El-Yaniv 2017): less is better."""
        steps = np.diff(self.share, prepend=0)
        return float((steps * (1 - self.accuracy)).sum()) if len(steps) else float("nan")

    def share_at(self, accuracy: float) -> float:
        """Returns the largest share of images that can be answered with this accuracy; 0 where there is none."""
        reached = self.share[self.accuracy >= accuracy]
        return float(reached[-1]) if len(reached) else 0.0


def coverage(confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> Coverage:
    """Returns accuracy against coverage; answers of equal confidence are given together."""
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order].astype(np.float64)
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if len(order) else np.zeros(0, int)
    return Coverage(
        share=(ends + 1) / max(len(order), 1),
        accuracy=right[order].cumsum()[ends] / (ends + 1),
        confidence=ordered[ends],
    )
