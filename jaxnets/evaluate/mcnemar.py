"""McNemar's test (1947): do two models make a different number of mistakes on the same images?

Images that both answer rightly, or both wrongly, say nothing. Of the others, if the models are equally good, each is
answered rightly by one or the other with probability one half, so that their number follows a binomial distribution.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from scipy.stats import binom, chi2

FEW = 25  # images on which they disagree, below which the chi-squared approximation is not to be used


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """What two models have right of the same images, and how probable so large a difference is by chance."""

    both: int  # have it right
    only_first: int
    only_second: int
    neither: int
    exact: float  # probability; two-sided, by the binomial distribution: never too small, and so cautious
    mid_p: float  # the same with half of what was observed, which errs as often as it says (Fagerland et al. 2013)
    chi_squared: float | None  # probability by the approximation with Edwards' correction; None where they are FEW

    @property
    def disagreements(self) -> int:
        return self.only_first + self.only_second

    def to_json(self) -> dict[str, float | int | None]:
        return {
            "both_right": self.both,
            "only_first_right": self.only_first,
            "only_second_right": self.only_second,
            "both_wrong": self.neither,
            "p_exact": self.exact,
            "p_mid": self.mid_p,
            "p_chi_squared": self.chi_squared,
        }


def mcnemar(first: Bool[np.ndarray, " n"], second: Bool[np.ndarray, " n"]) -> McNemar:
    """Tests whether two models are right equally often.

    With b and c images that only one of them has right, n = b + c and k = min(b, c), the exact probability is
    min(1, 2 P(X ≤ k)) for X ~ Binomial(n, 1/2); mid-p takes P(X = k) once from it; chi-squared, of one degree of
    freedom, is max(|b − c| − 1, 0)² / n.

    Args:
        first: whether each image is answered rightly by the one.
        second: likewise by the other, of the same images in the same order.
    """
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    n, k = b + c, min(b, c)
    twice = 2 * float(binom.cdf(k, n, 0.5))
    statistic = max(abs(b - c) - 1, 0) ** 2 / max(n, 1)
    return McNemar(
        both=int((first & second).sum()),
        only_first=b,
        only_second=c,
        neither=int((~first & ~second).sum()),
        exact=min(twice, 1.0),
        mid_p=min(twice - float(binom.pmf(k, n, 0.5)), 1.0),
        chi_squared=float(chi2.sf(statistic, 1)) if n >= FEW else None,
    )


def holm(probabilities: list[float]) -> list[float]:
    """Returns probabilities adjusted for there being several tests, by Holm's method (1979).

    With m of them, the i-th smallest (from 0) is multiplied by m − i, and none is smaller than the one before it.
    """
    order = np.argsort(probabilities, kind="stable")
    adjusted = [0.0] * len(probabilities)
    largest = 0.0
    for rank, number in enumerate(order.tolist()):
        largest = max(largest, min(probabilities[number] * (len(probabilities) - rank), 1.0))
        adjusted[number] = largest
    return adjusted
