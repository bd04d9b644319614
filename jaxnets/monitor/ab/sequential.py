"""A test, and an interval, that hold however often one looks at them: the mixture sequential probability ratio test.

Robbins 1970; for A/B tests Johari, Pekelis & Walsh, "Always valid inference: continuous monitoring of A/B tests"
(Operations Research 2022; Johari et al., KDD 2017). With a difference D of means whose variance is S, and effects that
are normally distributed about 0 with the standard deviation τ, the ratio of the likelihoods, mixed over the effects, is

    Λ = √(S / (S + τ²)) · exp(τ² D² / (2 S (S + τ²))),

which is theirs for two streams of n each, whose S is 2 σ² / n, written for samples of any two sizes. Without a
difference Λ is a martingale of mean 1 and ever exceeds 1 / α with a probability of α at most (Ville 1939). So the
smallest 1 / Λ so far is an always-valid p, and the differences D₀ with Λ(D − D₀) < 1 / α are an interval that holds at
all looks together. S is estimated: this is exact for many records, and `benchmarks/monitor.py ab` counts how often it
fails for few.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, kw_only=True, eq=False)
class Looks:
    """The difference of two means, as it was at each look."""

    difference: Float[np.ndarray, "*runs looks"]
    variance: Float[np.ndarray, "*runs looks"]  # of the difference
    enough: Bool[np.ndarray, "*runs looks"]  # whether a normal distribution is near enough: else nothing is said


def variance_of(
    sums: Float[np.ndarray, "*n"], squares: Float[np.ndarray, "*n"], counts: Int[np.ndarray, "*n"], low: float
) -> Float[np.ndarray, "*n"]:
    """Returns the variance of values from `low` to 1, as if one of each had been seen besides.

    So it is not 0 where all of few are alike.
    """
    mean = (sums + low + 1) / (counts + 2)
    return (squares + low**2 + 1) / (counts + 2) - mean**2


def always_valid_p(looks: Looks, effect: float) -> Float[np.ndarray, "*runs looks"]:
    """Returns the always-valid probability at each look: never larger than at the one before.

    Args:
        looks: at the difference.
        effect: τ, the size of differences that the test finds soonest.
    """
    s, t = looks.variance, effect**2
    log_ratio = 0.5 * np.log(s / (s + t)) + t * looks.difference**2 / (2 * s * (s + t))
    return np.minimum.accumulate(np.exp(-np.maximum(np.where(looks.enough, log_ratio, 0), 0)), axis=-1)


def half_width(looks: Looks, effect: float, alpha: float) -> Float[np.ndarray, "*runs looks"]:
    """Returns how far the true difference may be from what is seen, at all looks together with probability 1 − α."""
    s, t = looks.variance, effect**2
    half = np.sqrt(s * (s + t) / t * (np.log((s + t) / s) - 2 * np.log(alpha)))
    return np.where(looks.enough, half, np.inf)


def always_valid_interval(looks: Looks, effect: float, alpha: float) -> tuple[float, float]:
    """Returns what the intervals of all looks have in common, which leaves 0 out where the always-valid p is below α.

    Where they have nothing in common, as happens with probability α at most, it is the latest.
    """
    half = half_width(looks, effect, alpha)
    low, high = float((looks.difference - half).max()), float((looks.difference + half).min())
    if low > high:
        low, high = float(looks.difference[-1] - half[-1]), float(looks.difference[-1] + half[-1])
    return max(low, -1.0), min(high, 1.0)
