"""The probability from which on a label is said, for each class by itself: chosen by F1 on held-out images.

One half is seldom the best for F1, least of all for rare labels (Lipton et al. 2014, "Thresholding classifiers to
maximize F1 score": with calibrated probabilities it is half of the F1 that it leads to), but a threshold that is best
on a handful of positive images is best by chance (Lin & Lin 2023, "On the thresholding strategy for infrequent labels
in multi-label classification"). Therefore:

- F1 is compared at the borders of the bins that scores are counted in (0.05 logits), at none that two scores of one bin
  would decide.
- Of a stretch of thresholds between which no score lies, it is the middle in logits: as far from what was seen on one
  side as on the other. Below all scores the stretch has no other end, and it is the one nearest to one half; above all
  scores nothing is said, and none is compared.
- A threshold away from one half must be worth it: each logit costs as much F1 as half of a positive image. Of several
  that lead to the same F1, it is the one nearest to one half; a class without a positive image stays there.
- It is the mean over 32 samples of the images, drawn with replacement (bagging, Breiman 1996), in place of the jumps
  that a single image makes it do.

`benchmarks/thresholds.py` compares this with one half and with what is best on the images at hand.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from jaxnets.metrics.several_labels import BINS, RANGE

_SAMPLES, _SEED = 32, 0  # the same for the same counts, whoever chooses
_COST = 0.5  # positive images, for each logit away from one half
_DIGITS = 6  # of a threshold


def choose_thresholds(total: Mapping[str, np.ndarray]) -> tuple[float, ...]:
    """Returns a threshold of each class, a probability, from the sums of an evaluation with several labels."""
    counted = zip(total["positive_scores"], total["negative_scores"], strict=True)
    logits = np.array([_mean_of_samples(positive, negative) for positive, negative in counted])
    return tuple(np.round(1 / (1 + np.exp(-logits)), _DIGITS).tolist())


def best_logit(positive: Int[np.ndarray, " bins"], negative: Int[np.ndarray, " bins"], cost: float = 0.0) -> float:
    """Returns the logit above which a class is said for the highest F1; 0 for a class that no image has.

    Args:
        positive: how many images of the class have a score in each bin, from the lowest to the highest.
        negative: how many of the others.
        cost: what each logit away from one half takes off F1, in positive images.
    """
    images = positive.sum()
    if not images:
        return 0.0
    # Of each border between bins, from the lowest: what lies above it.
    true, false = (scores[::-1].cumsum()[::-1] for scores in (positive, negative))
    ends = np.flatnonzero(positive + negative > 0)  # the highest border of each stretch; above the last lies nothing
    starts = np.append(0, ends[:-1] + 1)
    lowest, highest = (border * (2 * RANGE / BINS) - RANGE for border in (starts, ends))
    logits = (lowest + highest) / 2
    logits[0] = min(highest[0], 0.0)
    f1 = (2 * true / (true + false + images))[starts] - cost / images * np.abs(logits)
    best = np.flatnonzero(f1 == f1.max())
    return float(min(logits[best], key=abs))


def _mean_of_samples(positive: Int[np.ndarray, " bins"], negative: Int[np.ndarray, " bins"]) -> float:
    random = np.random.default_rng(_SEED)
    drawn = (random.multinomial(n.sum(), n / max(n.sum(), 1), _SAMPLES) for n in (positive, negative))
    return float(np.mean([best_logit(p, n, _COST) for p, n in zip(*drawn, strict=True)]))
