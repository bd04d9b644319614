"""Two models on the same images: which is better, by how much, how surely, and where they disagree."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from jaxnets.evaluate.matching import aligned
from jaxnets.evaluate.mcnemar import McNemar, holm, mcnemar
from jaxnets.evaluate.predictions import Predictions
from jaxnets.evaluate.resampling import RESAMPLES, Interval, interval, resampled
from jaxnets.evaluate.weighted import LESS, evaluate, figures_by_name, is_right

SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A model's answers as they are judged."""

    name: str  # what it is called: its run directory, as a rule
    predictions: Predictions
    temperature: float = 1.0
    thresholds: tuple[float, ...] | None = None


@dataclass(frozen=True, repr=False, kw_only=True)
class Comparison:
    """What one model is against another; differences are the first's figure less the second's."""

    first: Judged
    second: Judged  # on the first's images, in their order
    test: McNemar
    p: float  # mid-p, adjusted for the number of comparisons
    figures: dict[str, tuple[Interval, Interval]]  # of either, by name
    differences: dict[str, Interval]
    first_right: Bool[np.ndarray, " n"]
    second_right: Bool[np.ndarray, " n"]

    @property
    def verdict(self) -> str:
        """One sentence on which is better."""
        difference = self.differences["accuracy"]
        if self.test.disagreements == 0:
            return f"{self.first.name} and {self.second.name} have the same images right"
        how_likely = f"{self.p:.2g}" if self.p > 1e-9 else "below 1e-9"
        chance = f"chance makes such a difference with probability {how_likely}"
        if self.p >= SIGNIFICANT:
            return (
                "neither is shown to be better on these images: the accuracies differ by "
                f"{100 * difference.value:+.2f} points, and {chance}"
            )
        better, worse = (self.first, self.second) if difference.value > 0 else (self.second, self.first)
        points = 100 * abs(difference.value)
        return f"{better.name} is better than {worse.name} by {points:.2f} points of accuracy; {chance}"

    def disagreements(self, first_right: bool, most: int) -> Int64[np.ndarray, " m"]:
        """Returns images that only one of the two has right, those first about which the two are surest.

        Args:
            first_right: whether it is the first that has them right.
            most: how many, at most.
        """
        mask = (self.first_right & ~self.second_right) if first_right else (self.second_right & ~self.first_right)
        members = np.flatnonzero(mask)
        sure = np.minimum(_confidence(self.first, members), _confidence(self.second, members))
        return members[np.argsort(-sure, kind="stable")[:most]]

    def to_json(self) -> dict[str, Any]:
        return {
            "first": self.first.name,
            "second": self.second.name,
            "count": len(self.first_right),
            "verdict": self.verdict,
            "mcnemar": self.test.to_json(),
            "p_adjusted": self.p,
            "resamples": RESAMPLES,
            "metrics": {
                name: {
                    "first": self.figures[name][0].to_json(),
                    "second": self.figures[name][1].to_json(),
                    "difference": difference.to_json(),
                    "better": "less" if name in LESS else "more",
                }
                for name, difference in self.differences.items()
            },
        }


def compare(first: Judged, others: Sequence[Judged], *, seed: int = 0) -> list[Comparison]:
    """Compares a model with each of some others on the same images, matched by their paths.

    Each pair is tested by McNemar's test, whose probabilities are adjusted by Holm's method where there are several.
    Intervals are of a paired bootstrap; where the source has groups, whole groups are drawn.

    Raises:
        UserError: if another was evaluated on other images, or knows other classes.
    """
    names = _different([first.name, *(other.name for other in others)])
    first = Judged(**{**vars(first), "name": names[0]})
    pairs = [
        Judged(
            name=name,
            predictions=aligned(first.predictions, other.predictions, (names[0], name)),
            temperature=other.temperature,
            thresholds=_reordered(other, first),
        )
        for name, other in zip(names[1:], others, strict=True)
    ]
    first_right = _right(first)
    tests = [mcnemar(first_right, _right(second)) for second in pairs]
    adjusted = holm([test.mid_p for test in tests])
    return [
        _comparison(first, second, first_right, test, p, seed)
        for second, test, p in zip(pairs, tests, adjusted, strict=True)
    ]


def _comparison(
    first: Judged, second: Judged, first_right: Bool[np.ndarray, " n"], test: McNemar, p: float, seed: int
) -> Comparison:
    mine, theirs = (
        figures_by_name(each.predictions, temperature=each.temperature, thresholds=each.thresholds)
        for each in (first, second)
    )
    names, n = [name for name in mine if name in theirs], len(first_right)
    wanted = [figures[name] for figures in (mine, theirs) for name in names]
    drawn = resampled(wanted, n, seed=seed, units=first.predictions.groups)
    whole = [evaluate(figures, n) for figures in (mine, theirs)]
    of_either, differences = {}, {}
    for i, name in enumerate(names):
        a, b = drawn[i], drawn[len(names) + i]
        of_either[name] = interval(whole[0][name], a), interval(whole[1][name], b)
        differences[name] = interval(whole[0][name] - whole[1][name], a - b)
    return Comparison(
        first=first,
        second=second,
        test=test,
        p=p,
        figures=of_either,
        differences=differences,
        first_right=first_right,
        second_right=_right(second),
    )


def _right(judged: Judged) -> Bool[np.ndarray, " n"]:
    predictions = judged.predictions
    given = predictions.probabilities(judged.temperature) if predictions.several_labels else None
    return is_right(predictions, given, judged.thresholds)


def _confidence(judged: Judged, members: Int64[np.ndarray, " m"]) -> Float32[np.ndarray, " m"]:
    """Returns how sure of its answer a model is: of several labels, of the one that it is least sure of."""
    probabilities = judged.predictions.take(members).probabilities(judged.temperature)
    if not len(members):
        return np.zeros(0, np.float32)
    if judged.predictions.several_labels:
        return np.abs(probabilities - 0.5).min(1)
    return probabilities.max(1)


def _reordered(other: Judged, first: Judged) -> tuple[float, ...] | None:
    """Returns the other's thresholds in the order of the first's classes, which `aligned` found to be the same."""
    if other.thresholds is None:
        return None
    of_class = dict(zip(other.predictions.class_names, other.thresholds, strict=True))
    return tuple(of_class[name] for name in first.predictions.class_names)


def _different(names: Sequence[str]) -> list[str]:
    """Returns of paths the shortest ends that tell them apart; numbered where two are the same."""
    parts = [PurePath(name).parts for name in names]
    for count in range(1, max(map(len, parts)) + 1):
        ends = [str(PurePath(*each[-count:])) for each in parts]
        if len(set(ends)) == len(names):
            return ends
    return [f"{name} ({i + 1})" if names.count(name) > 1 else name for i, name in enumerate(names)]
