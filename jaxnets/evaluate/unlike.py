"""Can the model tell images that are unlike those of its classes from its own? Out-of-distribution detection.

Each score is larger the more an image seems to be of the model's kind; a threshold on it would refuse the others.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from jaxnets.evaluate.intervals import QUANTILE
from jaxnets.evaluate.predictions import Predictions
from jaxnets.evaluate.resampling import Interval

KEPT = 0.95  # of the model's own images, at the threshold of the false positive rate
TITLES = {
    "probability": "largest probability",
    "energy": "energy",
    "logit": "largest logit",
    "distance": "distance of features",
}


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How well a score tells two sets of images apart."""

    own: Float64[np.ndarray, " n"]  # the score of each
    other: Float64[np.ndarray, " m"]
    auroc: Interval  # the probability that one of the own has the larger score; ties count half
    fpr95: float  # the share of the others that is kept where KEPT of the own are
    threshold: float  # the score from which on that is

    def to_json(self) -> dict[str, Any]:
        return {"auroc": self.auroc.to_json(), "fpr_at_95_tpr": self.fpr95, "threshold": self.threshold}


@dataclass(frozen=True, kw_only=True)
class Unlike:
    source: str  # of the other images
    own_count: int
    other_count: int
    scores: dict[str, Separation]

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "own": self.own_count,
            "other": self.other_count,
            "scores": {name: found.to_json() for name, found in self.scores.items()},
        }


def scores(predictions: Predictions, temperature: float = 1.0) -> dict[str, Float64[np.ndarray, " n"]]:
    """Returns each score of each image.

    probability: the largest one (Hendrycks & Gimpel 2017). energy: the negative of the energy, which is
    T · logsumexp(logits / T) (Liu et al. 2020, equation 4); of several labels, Σ T · log(1 + exp(logit / T)) (Wang et
    al. 2021, equation 5). logit: the largest one (Hendrycks et al. 2022).
    """
    z = predictions.logits.astype(np.float64)
    largest = z.max(1)
    if predictions.activation == "sigmoid":
        energy = temperature * np.logaddexp(0, z / temperature).sum(1)
    else:
        energy = largest + temperature * np.log(np.exp((z - largest[:, None]) / temperature).sum(1))
    probability = predictions.probabilities(temperature).max(1).astype(np.float64)
    return {"probability": probability, "energy": energy, "logit": largest}


def unlike(
    own: Predictions,
    other: Predictions,
    source: str,
    *,
    temperature: float = 1.0,
    distances: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]] | None = None,
) -> Unlike:
    """Returns how well a model tells its own images from others.

    Args:
        own: what it says of images of its classes.
        other: what it says of the others, whose labels are not looked at.
        source: of the others, for those who read it.
        temperature: that logits are divided by.
        distances: of own and other images from the training images in the space of features, where they are known.
    """
    mine, theirs = scores(own, temperature), scores(other, temperature)
    if distances is not None:
        mine["distance"], theirs["distance"] = (-np.asarray(x, np.float64) for x in distances)
    return Unlike(
        source=source,
        own_count=len(own),
        other_count=len(other),
        scores={name: separation(mine[name], theirs[name]) for name in mine},
    )


def separation(own: Float64[np.ndarray, " n"], other: Float64[np.ndarray, " m"]) -> Separation:
    """Returns how well a score, larger for the own, tells two sets of images apart."""
    threshold = float(np.sort(own)[::-1][max(int(np.ceil(KEPT * len(own))) - 1, 0)])
    return Separation(
        own=own,
        other=other,
        auroc=auroc(own, other),
        fpr95=float((other >= threshold).mean()),
        threshold=threshold,
    )


def auroc(own: Float64[np.ndarray, " n"], other: Float64[np.ndarray, " m"]) -> Interval:
    """Returns the area under the ROC curve, with an interval by DeLong's variance (DeLong et al. 1988).

    The area is the mean over all pairs of 1 where the own score is larger, and 1/2 where they are equal. Its variance
    is that of each own score's mean over the others, over n, and of each other's over the own, over m.
    """
    of_own, of_other = _above(own, other), 1 - _above(other, own)
    area = float(of_own.mean())
    if len(own) < 2 or len(other) < 2:
        return Interval(area, float("nan"), float("nan"))
    deviation = float(np.sqrt(of_own.var(ddof=1) / len(own) + of_other.var(ddof=1) / len(other)))
    return Interval(area, max(area - QUANTILE * deviation, 0.0), min(area + QUANTILE * deviation, 1.0))


def _above(scores: Float64[np.ndarray, " n"], others: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, " n"]:
    """Returns the share of the others that each score is above; what is equal counts half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    return below / (2 * len(others))
