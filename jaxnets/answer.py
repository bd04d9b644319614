"""The answer: which labels a model says that an image has, from their probabilities; for everything that shows one.

A model of images with one label answers with its most probable class. Where an image may have several, each label is
decided by itself, and the answer is a set, which may be empty.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Array, Float

from jaxnets.errors import UserError, quoted

HALF = 0.5  # the threshold of labels that have none of their own


class Model(Protocol):
    """What decides how probabilities are read; a `Classifier` is one."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def several_labels(self) -> bool: ...

    @property
    def thresholds(self) -> tuple[float, ...] | None: ...


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


def ranked(row: Float[np.ndarray, " classes"]) -> list[int]:
    """Returns the numbers of all labels, the most probable first; of equal ones the first first."""
    return np.argsort(-row, kind="stable").tolist()


def said(model: Model, row: Float[np.ndarray, " classes"]) -> list[int]:
    """Returns the numbers of the labels that an image is said to have, the most probable first."""
    if not model.several_labels:
        return ranked(row)[:1]
    above = decide(row, model.thresholds)
    return [number for number in ranked(row) if above[number]]


def shown_first(model: Model, row: Float[np.ndarray, " classes"], top: int) -> list[int]:
    """Returns the numbers of the labels to show: those that are said, then the most probable others, `top` in all.

    More where more are said.
    """
    first = said(model, row)
    return first + [number for number in ranked(row) if number not in first][: max(top - len(first), 0)]


def as_json(
    model: Model, row: Float[np.ndarray, " classes"], top: int, names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Returns the answer to one image: the `top` most probable classes, and with several labels the set `labels`.

    `names` are what to call the labels, where it is not what the model calls them.
    """
    names = names or model.labels

    def named(numbers: list[int]) -> list[dict[str, Any]]:
        return [{"label": names[i], "probability": float(row[i])} for i in numbers]

    labels = {"labels": named(said(model, row))} if model.several_labels else {}
    return {**labels, "top": named(ranked(row)[:top])}


def listed(names: Sequence[str]) -> str:
    """Returns a set of labels in words."""
    return ", ".join(names) or "none"
