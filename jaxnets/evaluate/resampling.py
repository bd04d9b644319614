"""Intervals by resampling: how much a figure would change had other images been drawn (Efron 1979).

Each resample draws as many images as there are, with replacement, and the figure is computed anew; an interval reaches
from the 2.5 % to the 97.5 % quantile of what came out (the percentile method). Images that belong together (of one
patient, say) are drawn together: alone, they would look like more evidence than they are. Two models are compared on
the same resamples, so that what makes an image hard for both does not count (the paired bootstrap).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

RESAMPLES = 2000
LEVEL = 0.95
_ROUNDING = 1e-6  # by which one model's figures differ between two engines
_AT_ONCE = 2**23  # counts in memory

# Takes how often each image was drawn, int64 `[r, n]`; returns the figure of each resample, NaN where it has none.
Figure = Callable[[Int64[np.ndarray, "r n"]], Float64[np.ndarray, " r"]]


class Interval(NamedTuple):
    """A figure, and the limits between which it lies with LEVEL probability; NaN where they are not known."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}

    @property
    def excludes_zero(self) -> bool:
        """Whether both limits are on the same side of zero, by more than what rounding makes."""
        return self.low > _ROUNDING or self.high < -_ROUNDING


def draws(
    count: int, *, seed: int, units: Sequence[str] | np.ndarray | None = None, resamples: int = RESAMPLES
) -> Iterator[Int64[np.ndarray, "r n"]]:
    """Yields how often each of `count` images was drawn in some resamples, a block of them at a time.

    Args:
        count: of images.
        seed: the same one gives the same resamples.
        units: what each image belongs to, where those of one unit are drawn together; as many units are drawn as there
            are, so that the number of images varies.
        resamples: how many in all.
    """
    random = np.random.default_rng(seed)
    of_image = None if units is None else np.unique(np.asarray(units), return_inverse=True)[1]
    drawn_from = count if of_image is None else int(of_image.max(initial=-1)) + 1
    if drawn_from == 1:  # all of one unit, of whose like nothing is known
        of_image, drawn_from = None, count
    block = max(_AT_ONCE // max(count, 1), 1)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        counts = np.stack(
            [np.bincount(random.integers(0, drawn_from, drawn_from), minlength=drawn_from) for _ in range(rows)]
        )
        yield counts if of_image is None else counts[:, of_image]


def resampled(
    figures: Sequence[Figure],
    count: int,
    *,
    seed: int,
    units: Sequence[str] | np.ndarray | None = None,
    resamples: int = RESAMPLES,
) -> list[Float64[np.ndarray, " r"]]:
    """Returns each figure of `count` images in each resample, the same ones for all figures; as `draws`."""
    found: list[list[np.ndarray]] = [[] for _ in figures]
    for counts in draws(count, seed=seed, units=units, resamples=resamples):
        for values, figure in zip(found, figures, strict=True):
            values.append(figure(counts))
    return [np.concatenate(values) for values in found]


def bootstrap(
    figures: Sequence[Figure],
    count: int,
    *,
    seed: int,
    units: Sequence[str] | np.ndarray | None = None,
    resamples: int = RESAMPLES,
) -> list[Interval]:
    """Returns each figure of `count` images with its interval, all on the same resamples."""
    whole = np.ones((1, count), np.int64)
    found = resampled(figures, count, seed=seed, units=units, resamples=resamples)
    return [interval(float(figure(whole)[0]), values) for figure, values in zip(figures, found, strict=True)]


def interval(value: float, resampled: Float64[np.ndarray, " r"]) -> Interval:
    """Returns a figure with the percentile interval of what it was in resamples; those without it do not count."""
    known = resampled[~np.isnan(resampled)]
    if not len(known) or np.isnan(value):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(known, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(value, float(low), float(high))
