"""A window of records against a reference: every test, what all of them together say, and the accuracy."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from jaxnets.errors import UserError
from jaxnets.evaluate.mcnemar import holm
from jaxnets.monitor import accuracy
from jaxnets.monitor.accuracy import Accuracy
from jaxnets.monitor.drift import Distances, Outcome, chi_squared, class_index, distances, kolmogorov_smirnov
from jaxnets.monitor.embeddings import classifier_test, discrepancy, scaled
from jaxnets.monitor.log import shown
from jaxnets.monitor.records import Records

LEAST = 100  # records of a window, and of a reference
ALPHA = 0.01
EFFECT = 0.05

Values = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Feature:
    """A number that each record has."""

    title: str
    unit: str
    of: Values  # from rows of RECORD to float64


FEATURES: dict[str, Feature] = {
    "confidence": Feature("Confidence", "probability of the most probable class", lambda rows: rows["confidence"]),
    "energy": Feature("Energy", "−T · ln Σ exp(logit / T): larger is stranger", lambda rows: rows["energy"]),
    "brightness": Feature("Brightness", "mean of the pixels, 0 … 1", lambda rows: rows["brightness"]),
    "sharpness": Feature("Sharpness", "difference of neighbouring pixels, 0 … 1", lambda rows: rows["sharpness"]),
    "size": Feature(
        "Size", "√(width × height), pixels", lambda rows: np.sqrt(rows["width"].astype(np.float64) * rows["height"])
    ),
    "aspect": Feature("Aspect", "width / height", lambda rows: rows["width"] / np.maximum(rows["height"], 1)),
}
TESTS = {
    "ks": "Kolmogorov–Smirnov",
    "chi2": "chi-square",
    "mmd": "maximum mean discrepancy",
    "classifier": "classifier two-sample test",
}


@dataclass(frozen=True, kw_only=True)
class Test:
    """One test of a window."""

    feature: str  # of FEATURES, or "classes", or "embedding"
    kind: str  # of TESTS
    outcome: Outcome
    adjusted: float  # probability, for there being several tests
    drifts: bool
    distances: Distances | None = None  # of numbers; of classes the first alone

    @property
    def name(self) -> str:
        return f"{self.feature}_{self.kind}" if self.feature == "embedding" else self.feature

    def to_json(self) -> dict[str, Any]:
        found = {} if self.distances is None else {k: v for k, v in self.distances._asdict().items() if v == v}
        return {
            "test": self.kind,
            "statistic": self.outcome.statistic,
            "p": self.outcome.p,
            "p_adjusted": self.adjusted,
            "effect": self.outcome.effect,
            **found,
            "drift": self.drifts,
        }


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """From where on a window is no longer as the reference."""

    alpha: float = ALPHA  # probability of a false alarm in a window, over all of its tests
    effect: float = EFFECT  # that a difference must have besides; with many records the smallest is significant
    least_accuracy: float | None = None  # that its 95 % interval must reach; real where labels have come, else expected
    least_records: int = LEAST

    def __post_init__(self) -> None:
        for name, value in (("alpha", self.alpha), ("effect", self.effect), ("least-accuracy", self.least_accuracy)):
            if value is not None and not 0 <= value < 1:
                raise UserError(f"--{name} must be from 0 to below 1, found {value:g}")
        if not self.alpha:
            raise UserError("--alpha must be more than 0: nothing would ever be found; 0.01 is usual")
        if self.least_records < 20:
            raise UserError(f"--least-records must be at least 20, found {self.least_records}: fewer say nothing")


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What is said of a window."""

    reference: Records
    window: Records
    bounds: Bounds
    tests: tuple[Test, ...]
    expected: Accuracy | None
    real: Accuracy | None
    reference_accuracy: Accuracy | None
    notes: tuple[str, ...] = field(default=())

    @property
    def crossed(self) -> tuple[str, ...]:
        """What is beyond its bound, by name."""
        found = [test.name for test in self.tests if test.drifts]
        judged = self.real or self.expected
        bound = self.bounds.least_accuracy
        if bound is not None and judged is not None and judged.interval.high < bound:
            found.append("accuracy")
        return tuple(found)

    @property
    def span(self) -> tuple[float, float]:
        """The times of the window's first and last record, seconds since 1970."""
        times = self.window.rows["time"]
        return float(times[0]), float(times[-1])

    def to_json(self) -> dict[str, Any]:
        about = self.window.about
        accuracies = {"expected": self.expected, "real": self.real, "reference": self.reference_accuracy}
        latency = self.window.rows["latency"]
        return {
            "format": 1,
            "model": about.model,
            "architecture": about.architecture,
            "step": about.step,
            "fingerprint": about.fingerprint,
            "window": {
                "records": len(self.window),
                "since": shown(self.span[0]),
                "until": shown(self.span[1]),
                "since_seconds": self.span[0],
                "until_seconds": self.span[1],
            },
            "reference": {"records": len(self.reference)},
            "alpha": self.bounds.alpha,
            "least_effect": self.bounds.effect,
            "drift": bool(self.crossed),
            "crossed": list(self.crossed),
            "tests": {test.name: test.to_json() for test in self.tests},
            "accuracy": {name: None if one is None else one.to_json() for name, one in accuracies.items()},
            "refused": float(self.window.rows["refused"].mean()),
            "latency": {f"p{q}": _quantile(latency, q / 100) for q in (50, 99)},
            "notes": list(self.notes),
        }


def _quantile(values: np.ndarray, share: float) -> float | None:
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, share)) if len(finite) else None


def values_of(name: str, rows: np.ndarray) -> Float64[np.ndarray, " n"]:
    """Returns a feature of records, without those that have none."""
    found = np.asarray(FEATURES[name].of(rows), np.float64)
    return found[np.isfinite(found)]


def classes_of(records: Records) -> Int[np.ndarray, " k"]:
    """Returns how many answers name each class; the last is of those that name none."""
    rows, classes = records.rows, len(records.about.labels)
    return np.bincount(np.where(rows["refused"], classes, rows["label"]), minlength=classes + 1)


def judge(reference: Records, window: Records, bounds: Bounds | None = None, seed: int = 0) -> Judgement:
    """Returns what tests say of a window. Their probabilities are adjusted for there being several, by Holm's method.

    Args:
        reference: of the same model.
        window: of the log.
        bounds: of what counts as drift.
        seed: of the samples and permutations.

    Raises:
        UserError: if there are too few records.
    """
    bounds = bounds or Bounds()
    _check_count(reference, window, bounds.least_records)
    notes = list(dict.fromkeys((*reference.notes, *window.notes)))
    found: list[tuple[str, str, Outcome, Distances | None]] = []
    for name in FEATURES:
        of_reference, of_window = values_of(name, reference.rows), values_of(name, window.rows)
        lost = len(window) - len(of_window)
        if lost:
            notes.append(f"{lost:,} records have no finite {name}, and are left out there")
        if min(len(of_reference), len(of_window)) < bounds.least_records:
            notes.append(f"{name} is not tested: too few records have a finite one")
            continue
        outcome = kolmogorov_smirnov(of_reference, of_window)
        found.append((name, "ks", outcome, distances(of_reference, of_window)))
    counts = classes_of(reference), classes_of(window)
    if (classes := chi_squared(*counts)) is not None:
        found.append(("classes", "chi2", classes, Distances(class_index(*counts), float("nan"))))
    embedded = [_finite(records.rows["projection"]) for records in (reference, window)]
    if min(map(len, embedded)) >= bounds.least_records:
        pair = scaled(embedded[0], embedded[1])
        if pair[0].shape[1]:
            found.append(("embedding", "mmd", discrepancy(*pair, seed), None))
            found.append(("embedding", "classifier", classifier_test(*pair, seed), None))
    adjusted = holm([outcome.p for _, _, outcome, _ in found])
    tests = tuple(
        Test(
            feature=feature,
            kind=kind,
            outcome=outcome,
            adjusted=p,
            # The discrepancy is of a bounded number of records, however many there are.
            drifts=p < bounds.alpha and (kind == "mmd" or outcome.effect >= bounds.effect),
            distances=apart,
        )
        for (feature, kind, outcome, apart), p in zip(found, adjusted, strict=True)
    )
    return Judgement(
        reference=reference,
        window=window,
        bounds=bounds,
        tests=tests,
        expected=accuracy.expected(reference, window),
        real=accuracy.real(window),
        reference_accuracy=accuracy.real(reference),
        notes=tuple(notes),
    )


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values).all(1)]


def _check_count(reference: Records, window: Records, least: int) -> None:
    if len(window) < least:
        raise UserError(
            f"the window has {len(window):,} records, and {least} are needed to say anything: take a longer --window, "
            "or wait for more"
        )
    if len(reference) < least:
        raise UserError(
            f"the reference has {len(reference):,} records, and {least} are needed: give a split with more images, or "
            "a longer log"
        )
