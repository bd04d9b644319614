"""What is read off a learning-rate range test: pure functions of its rates and losses."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

_WEIGHT = 0.9  # of what came before, in the smoothed loss
_EXPLODED = 4.0  # times the least smoothed loss, from which on a test is over: fastai's limit
_UNTRAINED = 20  # steps whose rates are so low that their losses tell where it began, and how they scatter
_LOST = (0.05, 4.0)  # share of that beginning, and standard deviations, above which all that was learned is lost
_SETTLING = 5  # steps whose average says little yet


def growing(low: float, high: float, steps: int) -> Float64[np.ndarray, " steps"]:
    """Returns rates from `low` to `high`, each the same multiple of the one before (fastai's LRFinder)."""
    return low * (high / low) ** (np.arange(steps) / max(steps - 1, 1))


def smoothed(losses: Sequence[float]) -> Float64[np.ndarray, " n"]:
    """Returns the exponential average of the losses so far, its bias corrected (Kingma & Ba 2015, section 3)."""
    found, average = [], 0.0
    for count, loss in enumerate(losses, 1):
        average = _WEIGHT * average + (1 - _WEIGHT) * loss
        found.append(average / (1 - _WEIGHT**count))
    return np.asarray(found, np.float64)


def diverges(losses: Sequence[float]) -> bool:
    """Tells whether the last loss is no number, or the average far above its least, or clearly above where it began.

    The last is what a network with normalised activations does: its loss does not grow without bound, it forgets.
    """
    if not np.isfinite(losses[-1]):
        return True
    average = smoothed(losses)
    if average[-1] > _EXPLODED * average.min():
        return True
    first = np.asarray(losses[:_UNTRAINED])
    share, deviations = _LOST
    margin = max(share * first.mean(), deviations * first.std())
    return len(losses) > _UNTRAINED and bool(average[-1] > first.mean() + margin)


def steepest(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """Returns the rate at which the smoothed loss falls fastest against the logarithm of the rate, before its least.

    fastai's rule `steep`. None where the loss falls nowhere.
    """
    average = smoothed(losses)
    slope = np.diff(average[: _least(average) + 1]) / np.diff(np.log(rates[: _least(average) + 1]))
    if len(slope) <= _SETTLING or slope[_SETTLING:].min() >= 0:
        return None
    return float(rates[1 + _SETTLING + int(slope[_SETTLING:].argmin())])


def below_minimum(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """Returns a tenth of the rate at which the smoothed loss is least: fastai's rule `minimum`.

    None where the loss falls nowhere.
    """
    least = _least(smoothed(losses))
    return float(rates[least]) / 10 if least > _SETTLING else None


def _least(average: Float64[np.ndarray, " n"]) -> int:
    """Returns where the average is least, after it has settled; 0 where it is never less than it was then."""
    later = average[_SETTLING:]
    return _SETTLING + int(later.argmin()) if len(later) else 0


RULES = {"steepest": steepest, "minimum / 10": below_minimum}
