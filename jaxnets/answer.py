"""The answer: which labels a model says that an image has, from their probabilities; for everything that shows one.

A model of images with one label answers with its most probable class. Where an image may have several, each label is
decided by itself, and the answer is a set, which may be empty. Where bounds were chosen for a model (`Refusal`), an
image beyond them gets no label: the answer is "none of these", with the reason.

A row is what a model computes of one image: its probabilities, at the model's temperature, and behind them the scores
that its bounds look at beside these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Array, Float

from jaxnets.errors import UserError, quoted
from jaxnets.trust.conformal import prediction_set
from jaxnets.trust.refusal import NONE_OF_THESE, Refusal

HALF = 0.5  # the threshold of labels that have none of their own


class Model(Protocol):
    """What decides how probabilities are read; a `Classifier` is one."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def several_labels(self) -> bool: ...

    @property
    def thresholds(self) -> tuple[float, ...] | None: ...

    @property
    def refusal(self) -> Refusal | None: ...


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns 1 / (1 + exp(−logits))."""
    return np.exp(-np.logaddexp(0, -logits))  # of large numbers too, without an overflow


def activated(
    logits: Float[np.ndarray, "*b classes"],
    activation: Literal["softmax", "sigmoid"],
    temperature: float | None = None,
) -> Float[np.ndarray, "*b classes"]:
    """Returns activation(logits / temperature): what the logits mean, in their own dtype.

    `models.forward.ACTIVATIONS` without JAX, which would compile them for each size of a batch.
    """
    if temperature is not None:
        logits = logits / np.asarray(temperature, logits.dtype)
    if activation == "sigmoid":
        return sigmoid(logits)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def decide(probabilities: Float[np.ndarray | Array, "*b classes"], thresholds: Sequence[float] | None = None) -> Any:
    """Returns of each label by itself whether its probability is above its threshold; one half where there are none.

    It is bool `[*b, classes]`, an array of NumPy's or JAX's as the probabilities are.
    """
    bounds = HALF if thresholds is None else np.asarray(thresholds, probabilities.dtype)
    return probabilities > bounds


def read_thresholds(saved: Any, classes: int) -> tuple[float, ...] | None:
    """Returns thresholds from JSON, None where there are none.

    Raises:
        UserError: if they are not a probability for each class; what to do is for the caller to add.
    """
    if saved is None:
        return None
    if not isinstance(saved, list) or not all(type(x) in (int, float) and 0 <= x <= 1 for x in saved):
        raise UserError(f"must have probabilities from 0 to 1 as thresholds, found {quoted(str(saved))}")
    if len(saved) != classes:
        raise UserError(f"must have a threshold for each of its {classes} classes, found {len(saved)}")
    return tuple(map(float, saved))


def thresholds_of(model: Model) -> tuple[float, ...] | None:
    """Returns the threshold of each label; None for a model of images with one, which has no use for any."""
    if not model.several_labels:
        return None
    return model.thresholds or (HALF,) * len(model.labels)


def refuses(model: Model) -> bool:
    """Tells whether there are images that a model does not answer."""
    return model.refusal is not None and model.refusal.refuses


def probabilities_of(model: Model, row: Float[np.ndarray, " columns"]) -> Float[np.ndarray, " classes"]:
    """Returns the probabilities of a row."""
    return row[: len(model.labels)]


def scores_of(model: Model, row: Float[np.ndarray, " columns"]) -> Mapping[str, float]:
    """Returns the scores behind a row's probabilities by name; none where the row is of probabilities alone."""
    behind = row[len(model.labels) :].tolist()
    return dict(zip(model.refusal.scores, behind, strict=True)) if model.refusal and behind else {}


def reason_of(model: Model, row: Float[np.ndarray, " columns"]) -> str | None:
    """Returns why an image gets no label; None where it gets what its probabilities say.

    That a class is not probable enough is a reason where an image has one label. Of several each has its threshold.
    """
    if model.refusal is None:
        return None
    confidence = 1.0 if model.several_labels else float(probabilities_of(model, row).max())
    return model.refusal.reason(confidence, scores_of(model, row))


def ranked(row: Float[np.ndarray, " classes"]) -> list[int]:
    """Returns the numbers of all labels, the most probable first; of equal ones the first first."""
    return np.argsort(-row, kind="stable").tolist()


def said(model: Model, row: Float[np.ndarray, " columns"]) -> list[int]:
    """Returns the numbers of the labels that an image is said to have, the most probable first."""
    return [] if reason_of(model, row) is not None else _unrefused(model, probabilities_of(model, row))


def _unrefused(model: Model, row: Float[np.ndarray, " classes"]) -> list[int]:
    if not model.several_labels:
        return ranked(row)[:1]
    above = decide(row, model.thresholds)
    return [number for number in ranked(row) if above[number]]


def shown_first(model: Model, row: Float[np.ndarray, " columns"], top: int) -> list[int]:
    """Returns the numbers of the labels to show: those that are said, then the most probable others, `top` in all.

    More where more are said.
    """
    first = said(model, row)
    others = [number for number in ranked(probabilities_of(model, row)) if number not in first]
    return first + others[: max(top - len(first), 0)]


def as_json(
    model: Model, row: Float[np.ndarray, " columns"], top: int, names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Returns the answer to one image: the `top` most probable classes, and with several labels the set `labels`.

    Of a model with bounds also `label`, null where the image is refused, and then its `reason`, and the scores that
    were looked at; with conformal sets the names of the classes that it may be, as `set`.

    `names` are what to call the labels, where it is not what the model calls them.
    """
    names = names or model.labels
    probabilities = probabilities_of(model, row)

    def named(numbers: list[int]) -> list[dict[str, Any]]:
        return [{"label": names[i], "probability": float(row[i])} for i in numbers]

    answer: dict[str, Any] = {}
    if model.several_labels:
        answer["labels"] = named(said(model, row))
    elif refuses(model):
        answer["label"] = next((names[i] for i in said(model, row)), None)
    if (reason := reason_of(model, row)) is not None:
        answer["reason"] = reason
    if scores := scores_of(model, row):
        answer["scores"] = {name: score if np.isfinite(score) else None for name, score in scores.items()}
    if candidates := candidates_of(model, row):
        answer["set"] = [names[i] for i in candidates]
    return {**answer, "top": named(ranked(probabilities)[:top])}


def candidates_of(model: Model, row: Float[np.ndarray, " columns"]) -> list[int]:
    """Returns the numbers of the classes in an image's conformal set; none for a model without such sets."""
    if model.several_labels or model.refusal is None or model.refusal.conformal is None:
        return []
    return prediction_set(probabilities_of(model, row), model.refusal.conformal.quantile)


@dataclass(frozen=True, repr=False)
class Answer:
    """What `Classifier.answer` says of one image."""

    labels: tuple[str, ...]  # that it is said to have, the most probable first: one; several or none; none if refused
    probabilities: Float[np.ndarray, " classes"]
    reason: str | None = None  # why there is no label, where the image is refused
    candidates: tuple[str, ...] = ()  # the conformal set, where the model has such sets
    scores: Mapping[str, float] | None = None  # energy and distance, where the model's bounds look at them

    @property
    def label(self) -> str | None:
        """The most probable label that is said; None where none is."""
        return self.labels[0] if self.labels else None

    def __repr__(self) -> str:
        said = NONE_OF_THESE if self.reason else ", ".join(self.labels) or "none"
        return f"Answer({said!r}, probability={self.probabilities.max():.4f}, reason={self.reason!r})"


def read_row(model: Model, row: Float[np.ndarray, " columns"]) -> Answer:
    """Returns the answer that a row comes to."""
    return Answer(
        labels=tuple(model.labels[i] for i in said(model, row)),
        probabilities=probabilities_of(model, row),
        reason=reason_of(model, row),
        candidates=tuple(model.labels[i] for i in candidates_of(model, row)),
        scores=scores_of(model, row) or None,
    )


def listed(names: Sequence[str]) -> str:
    """Returns a set of labels in words."""
    return ", ".join(names) or "none"
