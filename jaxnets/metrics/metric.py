"""What a metric is, and how its sums are added up."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32

from jaxnets.answer import decide

Sums = dict[str, Array]  # by name; those of two batches add up
ROWS = "rows/"  # begins the name of what `Totals` keeps instead of adding it up


class Outcome(NamedTuple):
    """What a batch of examples came to."""

    logits: Float[Array, "b classes"]
    label: Int32[Array, " b"] | Float32[Array, "b classes"]  # the class, or 1 for each that an image has
    mask: Bool[Array, " b"]  # False on what does not count
    loss: Float[Array, " b"]
    thresholds: Sequence[float] | None = None  # of each class where an image may have several; None: one half

    @property
    def several_labels(self) -> bool:
        """Whether an image may have several classes, each decided by itself."""
        return self.label.ndim == 2

    @property
    def decisions(self) -> Bool[Array, "b classes"]:
        """Of each class by itself, whether it is said."""
        return decide(jax.nn.sigmoid(self.logits), self.thresholds)


class Update(NamedTuple):
    """What a training step did."""

    gradient: Any  # of the mean loss, in the shape of the parameters
    params: Any  # before the step


@dataclass(frozen=True)
class Metric:
    """Sums that a device computes, and the figures that follow from their totals."""

    sums: Callable[[Any], Sums]  # of an Outcome, or of an Update
    figures: Callable[[Mapping[str, np.ndarray]], dict[str, float | int]]  # by the name under which they are written


def ratio(numerator: str, denominator: str, *, name: str) -> Callable[[Mapping[str, np.ndarray]], dict[str, Any]]:
    """Returns the `figures` that is one sum divided by another; NaN where there were no examples."""
    return lambda total: {name: float(total[numerator]) / (float(total[denominator]) or float("nan"))}


def sums_of(metrics: Iterable[Metric], outcome: Outcome | Update) -> Sums:
    """Returns the sums of several metrics; what two of them have in common has one name."""
    found: Sums = {}
    for metric in metrics:
        found |= metric.sums(outcome)
    return found


def figures_of(metrics: Iterable[Metric], total: Mapping[str, np.ndarray]) -> dict[str, float | int]:
    """Returns the figures of several metrics."""
    found: dict[str, float | int] = {}
    for metric in metrics:
        found |= metric.figures(total)
    return found


class Totals:
    """Adds up sums on the host, in 64 bits.

    What begins with ROWS is no sum but a row for each example, and one batch's rows are put below those of the last.
    """

    def __init__(self) -> None:
        self._total: dict[str, np.ndarray] | None = None
        self._rows: dict[str, list[np.ndarray]] = {}

    def add(self, more: Mapping[str, Array]) -> None:
        for name in [name for name in more if name.startswith(ROWS)]:
            self._rows.setdefault(name, []).append(np.asarray(more[name]))
        wide = {name: _widen(x) for name, x in more.items() if not name.startswith(ROWS)}
        self._total = wide if self._total is None else jax.tree.map(_add, self._total, wide)

    def result(self) -> dict[str, np.ndarray]:
        if self._total is None:
            raise ValueError("nothing was added")
        return self._total | {name: np.concatenate(rows) for name, rows in self._rows.items()}


def _add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(a + b)  # the sum of two of no dimensions is a scalar


def _widen(x: Array) -> np.ndarray:
    values = np.asarray(x)
    return values.astype(np.float64 if values.dtype.kind == "f" else np.int64)
