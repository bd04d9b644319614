"""Compares what two models answered: how often they are right, how often they say nothing, and how sure they are."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from jaxnets.errors import UserError
from jaxnets.evaluate.intervals import QUANTILE, Interval, wilson
from jaxnets.evaluate.mcnemar import holm
from jaxnets.monitor.ab.sequential import Looks, always_valid_interval, always_valid_p, variance_of
from jaxnets.monitor.accuracy import right
from jaxnets.monitor.records import UNKNOWN, Records

_FEW = 5  # of a kind, by expectation, below which a share is not near enough to normal
_PAIRED = 0.5  # of the smaller log's records that the other has too, from which on images are compared one by one


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How sure one must be."""

    alpha: float = 0.05  # probability that a difference is ever said where there is none, over all measures
    effect: float = 0.02  # differences that are found soonest
    low: float = 0.5  # confidence below which an answer counts as unsure
    least_records: int = 100  # of each model
    every: int = 100  # records between looks

    def __post_init__(self) -> None:
        for name in ("alpha", "effect", "low"):
            if not 0 < (value := getattr(self, name)) < 1:
                raise UserError(f"--{name} must be above 0 and below 1, found {value:g}")
        if self.least_records < 20:
            raise UserError(f"--least-records must be at least 20, found {self.least_records}: fewer say nothing")
        if self.every < 1:
            raise UserError(f"--every must be at least 1, found {self.every}")


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One figure of both models."""

    name: str
    a: float
    b: float
    counts: tuple[int, int]  # records that they are of
    interval: Interval  # of b − a, to 95 %, for one look
    always: Interval  # likewise at 1 − alpha, for any number of looks and for all measures together
    p: float  # always valid
    adjusted: float = math.nan  # for there being several measures

    def to_json(self) -> dict[str, Any]:
        return {
            "measure": self.name,
            "a": self.a,
            "b": self.b,
            "records": list(self.counts),
            "difference": self.b - self.a,
            "interval": list(self.interval),
            "always_valid_interval": list(self.always),
            "always_valid_p": self.p,
            "always_valid_p_adjusted": self.adjusted,
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is said of two models."""

    a: Records
    b: Records
    paired: int  # images that both answered and that are compared one by one; 0: two samples
    bounds: Bounds
    measures: tuple[Measure, ...]
    notes: tuple[str, ...] = ()

    @property
    def differing(self) -> tuple[str, ...]:
        """The measures in which the models differ."""
        return tuple(one.name for one in self.measures if one.adjusted <= self.bounds.alpha)

    def to_json(self) -> dict[str, Any]:
        models = {
            name: {
                "model": of.about.model,
                "step": of.about.step,
                "records": len(of),
                "fingerprint": of.about.fingerprint,
            }
            for name, of in (("a", self.a), ("b", self.b))
        }
        return {
            **models,
            "paired": self.paired,
            "alpha": self.bounds.alpha,
            "effect": self.bounds.effect,
            "measures": [one.to_json() for one in self.measures],
            "differing": list(self.differing),
            "notes": list(self.notes),
        }


def compare(a: Records, b: Records, bounds: Bounds | None = None) -> Comparison:
    """Compares two models by their records.

    Where most records of one have the number of one of the other's, as a shadow's have, the images are compared one by
    one; else as two samples, of which no image is in both.

    Raises:
        UserError: if they have other classes, or too few records.
    """
    bounds = bounds or Bounds()
    if sorted(a.about.labels) != sorted(b.about.labels) or a.about.several_labels != b.about.several_labels:
        raise UserError(
            f"{a.about.model} and {b.about.model} do not have the same classes ({len(a.about.labels)} and "
            f"{len(b.about.labels)}): what they answer cannot be compared"
        )
    notes: list[str] = []
    _, in_a, in_b = np.intersect1d(a.rows["id"], b.rows["id"], return_indices=True)
    paired = len(in_a) >= _PAIRED * max(min(len(a), len(b)), 1)
    if paired:
        order = np.argsort(a.rows["time"][in_a], kind="stable")
        rows_a, rows_b = a.rows[in_a[order]], b.rows[in_b[order]]
    else:
        rows_a, rows_b = (
            rows[np.argsort(rows["time"], kind="stable")]
            for rows in (
                np.delete(a.rows, in_a if len(a) >= len(b) else []),
                np.delete(b.rows, in_b if len(a) < len(b) else []),
            )
        )
    if len(in_a) and not paired:
        notes.append(f"{len(in_a):,} images that both answered count for the model with fewer records alone")
    for of, rows in ((a, rows_a), (b, rows_b)):
        if len(rows) < bounds.least_records:
            raise UserError(
                f"{of.about.model} has {len(rows):,} records to compare, and --least-records are "
                f"{bounds.least_records}: wait for more, or ask for fewer"
            )
    several = a.about.several_labels
    values = list(_values(rows_a, rows_b, bounds, notes, several, paired))
    found = [_measure(one, bounds, bounds.alpha / len(values), paired=paired) for one in values]
    adjusted = holm([one.p for one in found])
    measures = [Measure(**{**vars(one), "adjusted": p}) for one, p in zip(found, adjusted, strict=True)]
    return Comparison(
        a=a, b=b, paired=len(rows_a) if paired else 0, bounds=bounds, measures=tuple(measures), notes=tuple(notes)
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Values:
    """What is compared: numbers from 0 to 1 of each record, with their times."""

    name: str
    a: Float64[np.ndarray, " m"]
    b: Float64[np.ndarray, " n"]
    times: tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, " n"]]
    shares: bool = True  # whether they are 0 or 1


def _values(
    a: np.ndarray, b: np.ndarray, bounds: Bounds, notes: list[str], several: bool, paired: bool
) -> Iterator[_Values]:
    known = [rows["truth"] != UNKNOWN for rows in (a, b)]
    if paired:
        known = [known[0] & known[1]] * 2
    counts = [int(one.sum()) for one in known]
    if not several and min(counts) >= bounds.least_records:
        labelled = [rows[one] for rows, one in zip((a, b), known, strict=True)]
        yield _pair("accuracy", *labelled, *(right(rows) for rows in labelled))
    elif not several:
        notes.append(
            f"the accuracy is not compared: {counts[0]:,} and {counts[1]:,} records have a label, and "
            f"{bounds.least_records} are needed (--labels CSV)"
        )
    if a["refused"].any() or b["refused"].any():
        yield _pair("refused", a, b, a["refused"], b["refused"])
    yield _pair("unsure", a, b, a["confidence"] < bounds.low, b["confidence"] < bounds.low)
    yield _pair("confidence", a, b, a["confidence"], b["confidence"], shares=False)


def _pair(name: str, a: np.ndarray, b: np.ndarray, x: np.ndarray, y: np.ndarray, *, shares: bool = True) -> _Values:
    numbers = [np.clip(values.astype(np.float64), 0, 1) for values in (x, y)]
    return _Values(name=name, a=numbers[0], b=numbers[1], times=(a["time"], b["time"]), shares=shares)


def _measure(values: _Values, bounds: Bounds, alpha: float, *, paired: bool) -> Measure:
    looks = looks_at_pairs(values.b - values.a, bounds) if paired else looks_at_samples(values, bounds)
    difference, variance = float(looks.difference[-1]), float(looks.variance[-1])
    return Measure(
        name=values.name,
        a=float(values.a.mean()),
        b=float(values.b.mean()),
        counts=(len(values.a), len(values.b)),
        interval=_newcombe(values) if values.shares and not paired else _around(difference, QUANTILE * variance**0.5),
        always=Interval(*always_valid_interval(looks, bounds.effect, alpha)),
        p=float(always_valid_p(looks, bounds.effect)[-1]),
    )


def _around(middle: float, half: float) -> Interval:
    return Interval(max(middle - half, -1.0), min(middle + half, 1.0))


def _newcombe(values: _Values) -> Interval:
    """Returns the 95 % score interval of the difference of two shares (Newcombe 1998, method 10)."""
    a, b = (wilson(int(x.sum()), len(x)) for x in (values.a, values.b))
    x, y = values.a.mean(), values.b.mean()
    low = y - x - math.hypot(y - b.low, a.high - x)
    return Interval(float(low), float(y - x + math.hypot(b.high - y, x - a.low)))


def looks_at_pairs(differences: Float64[np.ndarray, "*runs n"], bounds: Bounds) -> Looks:
    """Returns what was seen of pairs, whose differences are −1…1, after each so many and at the end."""
    n = differences.shape[-1]
    ends = _ends(n, bounds.least_records, bounds.every)
    sums, squares = (np.cumsum(x, -1)[..., ends - 1] for x in (differences, differences**2))
    variance = variance_of(sums, squares, ends, -1) / ends
    return Looks(difference=sums / ends, variance=variance, enough=squares >= 2 * _FEW)


def looks_at_samples(values: _Values, bounds: Bounds) -> Looks:
    """Returns what was seen of two samples as their records came, after each so many and at the end."""
    times = np.concatenate(values.times)
    order = np.argsort(times, kind="stable")
    of_b = order >= len(values.a)
    seen_b = np.cumsum(of_b)
    seen_a = np.arange(1, len(order) + 1) - seen_b
    enough = int(np.argmax((seen_a >= bounds.least_records) & (seen_b >= bounds.least_records))) + 1
    ends = _ends(len(order), enough, bounds.every)
    return looks_of(values.a, values.b, seen_a[ends - 1], seen_b[ends - 1])


def looks_of(
    a: Float64[np.ndarray, "*runs m"],
    b: Float64[np.ndarray, "*runs n"],
    seen_a: Int64[np.ndarray, " looks"],
    seen_b: Int64[np.ndarray, " looks"],
) -> Looks:
    """Returns what was seen of two samples of numbers 0…1, once so many of each had come."""
    counts, sums, squares = [], [], []
    for x, seen in ((a, seen_a), (b, seen_b)):
        counts.append(seen)
        sums.append(np.cumsum(x, -1)[..., seen - 1])
        squares.append(np.cumsum(x**2, -1)[..., seen - 1])
    variances = [variance_of(*each, 0) for each in zip(sums, squares, counts, strict=True)]
    both = variance_of(sums[0] + sums[1], squares[0] + squares[1], counts[0] + counts[1], 0)
    # The smaller sample's own is now and then far too small; that of both is not.
    variance = np.maximum(variances[0] / counts[0] + variances[1] / counts[1], both / counts[0] + both / counts[1])
    mean, least = (sums[0] + sums[1]) / (counts[0] + counts[1]), np.minimum(*counts)
    return Looks(
        difference=sums[1] / counts[1] - sums[0] / counts[0],
        variance=variance,
        enough=least * np.minimum(mean, 1 - mean) >= _FEW,
    )


def _ends(count: int, first: int, every: int) -> Int64[np.ndarray, " looks"]:
    """Returns after how many records is looked: each so many from some on, and after the last."""
    return np.unique([*range(-(-first // every) * every, count + 1, every), count])
