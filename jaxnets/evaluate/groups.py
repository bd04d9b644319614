"""Every figure by group, and how far apart the groups are: does the model serve some of them worse?

A gap is the difference between the best and the worst group. Of many groups, two lie far apart by chance alone, and the
more so the smaller they are: groups of few images are marked and make no gap, and a permutation test says how often
groups that were drawn blindly have as large a gap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from jaxnets.errors import UserError, quoted
from jaxnets.evaluate.intervals import wilson
from jaxnets.evaluate.predictions import Predictions
from jaxnets.evaluate.resampling import Interval, interval, resampled
from jaxnets.evaluate.weighted import LESS, evaluate, figures_by_name, is_right

SMALL = 30  # images, below which a group is small
_SHUFFLES = 2000
_VALUES, _RANGES = 12, 4  # different numbers above which there are ranges, and how many
_NONE = "(none)"  # what images without a value are called


def in_ranges(values: Sequence[str]) -> list[str]:
    """Returns numbers of many different values, such as ages, as a few ranges with about as many images in each.

    Values that are no numbers, or few different ones, are returned as they are; empty ones stay empty.
    """
    given = [value.strip() for value in values]
    known = [value for value in given if value]
    if len(set(known)) <= _VALUES:
        return given
    try:
        numbers = np.array(known, np.float64)
    except ValueError:
        return given
    if not np.isfinite(numbers).all():
        return given
    edges = np.unique(np.quantile(numbers, np.arange(1, _RANGES) / _RANGES))
    of = np.searchsorted(edges, numbers, "left")
    names = {i: f"{numbers[of == i].min():g} … {numbers[of == i].max():g}" for i in np.unique(of).tolist()}
    named = iter([names[i] for i in of.tolist()])
    return [next(named) if value else "" for value in given]


@dataclass(frozen=True, kw_only=True)
class Group:
    name: str
    count: int
    small: bool
    figures: dict[str, Interval]


@dataclass(frozen=True, kw_only=True)
class Gap:
    """How far the best group is from the worst, by one figure."""

    best: str
    worst: str
    difference: Interval  # of the best's figure and the worst's, positive however they are counted
    p: float | None  # the share of blind divisions with as large a gap; None where it was not computed


@dataclass(frozen=True, kw_only=True)
class ByGroup:
    column: str
    groups: tuple[Group, ...]  # the largest first
    gaps: dict[str, Gap]  # by figure; of the groups that are not small
    together: dict[str, float]  # the figures of all images

    def to_json(self) -> dict[str, Any]:
        return {
            "column": self.column,
            "small_below": SMALL,
            "groups": {
                group.name: {
                    "count": group.count,
                    "small": group.small,
                    **{name: value.to_json() for name, value in group.figures.items()},
                }
                for group in self.groups
            },
            "gaps": {
                name: {
                    "best": gap.best,
                    "worst": gap.worst,
                    "difference": gap.difference.to_json(),
                    "p_permutation": gap.p,
                }
                for name, gap in self.gaps.items()
            },
        }


def by_group(
    predictions: Predictions,
    values: Sequence[str],
    column: str,
    *,
    temperature: float = 1.0,
    thresholds: Sequence[float] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> ByGroup:
    """Returns every figure by group.

    Accuracy has Wilson's interval, or where images belong to units (`predictions.groups`) that of drawing whole units,
    as the other figures have.

    Args:
        predictions: of a model.
        values: the group of each image; "" for one without.
        column: what the groups are, for those who read it.
        temperature: that the logits are divided by.
        thresholds: of each class where an image may have several.
        seed: of the resamples.
        resamples: how many.

    Raises:
        UserError: if every image is a group of its own, or there are no images.
    """
    named = np.array([value.strip() or _NONE for value in values])
    if len(named) != len(predictions):
        raise ValueError(f"expected a group for each of {len(predictions)} images, found {len(named)}")
    names, codes, counts = np.unique(named, return_inverse=True, return_counts=True)
    if not len(named):
        raise UserError(f"there are no images to divide by {quoted(column)}")
    if len(names) == len(named) and len(named) > 1:
        raise UserError(
            f"the column {quoted(column)} has another value for each image ({', '.join(map(quoted, names[:3]))}, …): "
            "give --by a column whose values are groups"
        )
    order = np.argsort(-counts, kind="stable")
    figures = figures_by_name(predictions, temperature=temperature, thresholds=thresholds)
    drawn: dict[str, dict[str, np.ndarray]] = {}
    groups = []
    for code in order.tolist():
        name, members = str(names[code]), np.flatnonzero(codes == code)
        own = predictions.take(members)
        own_figures = figures_by_name(own, temperature=temperature, thresholds=thresholds)
        drawn[name] = dict(
            zip(
                own_figures,
                resampled([*own_figures.values()], len(own), seed=seed + code, units=own.groups, resamples=resamples),
                strict=True,
            )
        )
        values_of = evaluate(own_figures, len(members))
        found = {key: interval(value, drawn[name][key]) for key, value in values_of.items()}
        probabilities = own.probabilities(temperature) if own.several_labels else None
        right = is_right(own, probabilities, thresholds)
        units = len(members) if own.groups is None else len(np.unique(own.groups))
        if own.groups is None or right.all() or not right.any():  # resamples of what is all alike are all alike
            share = right.mean()
            found["accuracy"] = Interval(float(share), *wilson(round(units * share), units))
        groups.append(Group(name=name, count=len(members), small=len(members) < SMALL, figures=found))
    large = [group for group in groups if not group.small]
    gaps = {}
    for key in figures:
        gap = _gap(key, large, drawn)
        if gap is not None:
            gaps[key] = gap
    if "accuracy" in gaps:
        probabilities = predictions.probabilities(temperature) if predictions.several_labels else None
        right = is_right(predictions, probabilities, thresholds).astype(np.float64)
        large_codes = [code for code in order.tolist() if counts[code] >= SMALL]
        p = _by_chance(right, codes, large_codes, len(names), gaps["accuracy"].difference.value, seed)
        gaps["accuracy"] = Gap(**{**vars(gaps["accuracy"]), "p": p})
    return ByGroup(column=column, groups=tuple(groups), gaps=gaps, together=evaluate(figures, len(named)))


def _gap(key: str, groups: Sequence[Group], drawn: dict[str, dict[str, np.ndarray]]) -> Gap | None:
    """Returns the gap between the best and the worst group; None where fewer than two have the figure."""
    known = [group for group in groups if not np.isnan(group.figures[key].value)]
    if len(known) < 2:
        return None
    sign = -1 if key in LESS else 1
    ordered = sorted(known, key=lambda group: sign * group.figures[key].value)
    worst, best = ordered[0], ordered[-1]
    value = sign * (best.figures[key].value - worst.figures[key].value)
    apart = sign * (drawn[best.name][key] - drawn[worst.name][key])
    return Gap(best=best.name, worst=worst.name, difference=interval(value, apart), p=None)


def _by_chance(
    right: np.ndarray, codes: Int64[np.ndarray, " n"], large: Sequence[int], groups: int, gap: float, seed: int
) -> float:
    """Returns the share of divisions into groups of the same sizes, drawn blindly, with as large a gap in accuracy."""
    random = np.random.default_rng(seed)
    sizes = np.bincount(codes, minlength=groups)[large]
    reached = 0
    for _ in range(_SHUFFLES):
        shares = np.bincount(codes, random.permutation(right), minlength=groups)[large] / sizes
        reached += bool(shares.max() - shares.min() >= gap - 1e-12)
    return (reached + 1) / (_SHUFFLES + 1)
