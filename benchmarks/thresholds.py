"""Thresholds of several labels on drawn scores: python benchmarks/thresholds.py

Logits of one label are drawn as a calibrated model's are (two normal distributions of equal width), and then shifted or
scaled, as an uncalibrated one's. A threshold is chosen on a few validation images, and F1 is that on many others.
Printed is its mean, in percent: at one half, at what is best on the validation images, and at what jaxnets chooses.
"""

from collections import defaultdict
from itertools import product

import numpy as np

from jaxnets.metrics.several_labels import BINS, RANGE
from jaxnets.metrics.thresholds import best_logit, choose_thresholds

IMAGES, SHARES = (25, 50, 100, 400), (0.05, 0.2, 0.5)  # of validation; of them that have the label
SEPARATIONS, SHIFTS, SCALES = (1.5, 3.0, 4.5), (0.0, -1.5, 1.0), (0.6, 1.0, 2.0)
DRAWS, OTHERS = 40, 10_000


def main() -> None:
    random = np.random.default_rng(0)
    found: dict[int, list[list[float]]] = defaultdict(list)
    for images, *kind in product(IMAGES, SHARES, SEPARATIONS, SHIFTS, SCALES):
        share = kind[0]
        true, false = drawn(random, OTHERS, 1, *kind), drawn(random, OTHERS, -1, *kind)
        for _ in range(DRAWS):
            count = random.binomial(images, share)
            positive = counted(drawn(random, count, 1, *kind))
            negative = counted(drawn(random, images - count, -1, *kind))
            (chosen,) = choose_thresholds({"positive_scores": positive[None], "negative_scores": negative[None]})
            logits = (0.0, best_logit(positive, negative), np.log(chosen / (1 - chosen)))
            above = [(share * (true > t).mean(), (1 - share) * (false > t).mean()) for t in logits]
            found[images].append([2 * yes / (yes + no + share) for yes, no in above])
    print("validation images   one half   best there   chosen")
    for name, rows in [*found.items(), ("all", [row for each in found.values() for row in each])]:
        print(f"{name:>17}   " + "   ".join(f"{100 * x:8.2f}" for x in np.mean(rows, axis=0)))


def drawn(
    random: np.random.Generator, count: int, sign: int, share: float, separation: float, shift: float, scale: float
) -> np.ndarray:
    """Returns the logits of `count` images that have the label (`sign` 1) or have it not (−1)."""
    calibrated = separation * random.normal(sign * separation / 2, 1, count) + np.log(share / (1 - share))
    return scale * calibrated + shift


def counted(logits: np.ndarray) -> np.ndarray:
    bins = ((logits + RANGE) * (BINS / (2 * RANGE))).clip(0, BINS - 1).astype(int)
    return np.bincount(bins, minlength=BINS)


if __name__ == "__main__":
    main()
