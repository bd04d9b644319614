"""The probability from which on a label is said, for each class by itself: chosen by F1 on held-out images.

One half is seldom the best for F1, least of all for rare labels (Lipton et al. 2014, "Thresholding classifiers to
maximize F1 score": with calibrated probabilities it is half of the F1 that it leads to), but a threshold that is best
on a handful of positive images is best by chance (Lin & Lin 2023, "On the thresholding strategy for infrequent labels
in multi-label classification"). Therefore:

- F1 is compared at the borders of the bins that scores are counted in (0.05 logits), at none that two scores of one bin
  would decide.
- Of a run of thresholds between which no score lies, it is the middle in logits: as far from what was seen on one side
  as on the other. Where nothing lies below, the run has no other end, and it is the one that is nearest to one half.
- Of several that lead to the same F1, it is the one nearest to one half.
- It is drawn towards one half by what a single positive image is worth: with n of them the logit is n / (n + 1) of the
  best one's. One positive image moves the threshold half the way, fifty all but the whole, and none leaves it there.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from jaxnets.metrics.several_labels import BINS, RANGE

_DIGITS = 6  # of a threshold


def choose_thresholds(total: Mapping[str, np.ndarray]) -> tuple[float, ...]:
    """Returns a threshold of each class, a probability, from the sums of an evaluation with several labels."""
    positive, negative = total["positive_scores"], total["negative_scores"]
    count = positive.sum(1)
    logits = np.array([best_logit(p, n) for p, n in zip(positive, negative, strict=True)]) * (count / (count + 1))
    return tuple(np.round(1 / (1 + np.exp(-logits)), _DIGITS).tolist())


def best_logit(positive: Int[np.ndarray, " bins"], negative: Int[np.ndarray, " bins"]) -> float:
    """Returns the logit above which a class is said for the highest F1; 0 for a class that no image has.

    Args:
        positive: how many images of the class have a score in each bin, from the lowest to the highest.
        negative: how many of the others.
    """
    images = positive.sum()
    if not images:
        return 0.0
    # Of each border between bins: what lies above it, from the lowest border to the last, above which there is nothing.
    true, false = (np.append(scores[::-1].cumsum()[::-1], 0) for scores in (positive, negative))
    f1 = 2 * true / (true + false + images)
    best = np.flatnonzero(f1 == f1.max())
    runs = np.split(best, np.flatnonzero((np.diff(true[best]) != 0) | (np.diff(false[best]) != 0)) + 1)
    return min((_within(run) for run in runs), key=abs)


def _within(run: Int[np.ndarray, " n"]) -> float:
    """Returns the logit that stands for a run of borders between which no score lies."""
    logits: Float[np.ndarray, " n"] = run * (2 * RANGE / BINS) - RANGE
    lowest, highest = float(logits[0]), float(logits[-1])
    return min(0.0, highest) if run[0] == 0 else (lowest + highest) / 2
