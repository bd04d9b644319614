"""Temperature scaling: one number that makes probabilities mean what they say.

Guo, Pleiss, Sun & Weinberger 2017, "On calibration of modern neural networks", section 4.2: logits are divided by a
temperature T > 0 before the softmax, with T of the least log-loss on held-out images. The most probable class stays the
same. Where an image may have several labels the loss is the binary cross-entropy of each, with one T for all.
"""

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxnets.errors import UserError

LEAST, MOST = 0.02, 50.0  # a temperature beyond these is none: the loss has no minimum that means something
_CHUNK = 2**22  # logits that are held in float64 at a time
_TOLERANCE = 1e-10  # of ln T

Logits = Float[np.ndarray, "n classes"]
Labels = Int[np.ndarray, " n"] | Bool[np.ndarray, "n classes"]
Activation = Literal["softmax", "sigmoid"]


def fit_temperature(logits: Logits, labels: Labels, activation: Activation = "softmax") -> float:
    """Returns the temperature of the least mean log-loss.

    In 1 / T the loss is convex, a mean of logsumexp(z / T) − z_y / T, so that its slope has one root at most:
    Brent's method finds it between LEAST and MOST to a tolerance that does not depend on a first guess or a rate.

    Args:
        logits: of held-out images.
        labels: the class of each, or with several labels those that it has.
        activation: that makes the logits probabilities.

    Raises:
        UserError: if there is no such temperature: without images, where all are right at any sharpness, or where the
            logits say nothing of the labels.
    """
    from scipy.optimize import brentq

    if not len(logits):
        raise UserError("a temperature is fitted on held-out images, and there are none: give a split that has some")
    if not np.isfinite(logits).all():
        raise UserError("a temperature is fitted on numbers, and some logits are NaN or infinite: train the model anew")

    def slope(log_temperature: float) -> float:
        return _slope(logits, labels, activation, math.exp(-log_temperature))

    if slope(math.log(MOST)) >= 0:
        raise UserError(
            f"no temperature can be fitted on these {len(logits)} images: what the model says has nothing to do with "
            "their labels. Look whether the classes of the data are those of the run, and whether it has learnt"
        )
    if slope(math.log(LEAST)) <= 0:  # nothing where even the smallest share of the others underflows
        raise UserError(
            f"no temperature can be fitted on these {len(logits)} images: the model is right about all, and the "
            "more it is the surer it is, so that the log-loss has no minimum. Hold more out "
            "(--config.data.validation=0.2), or leave the temperature out"
        )
    root = brentq(slope, math.log(LEAST), math.log(MOST), xtol=_TOLERANCE, rtol=8.9e-16)
    return math.exp(root)


def log_loss(logits: Logits, labels: Labels, activation: Activation = "softmax", temperature: float = 1.0) -> float:
    """Returns the mean over images of −ln p(label), or with several labels of the sum over labels."""
    total = 0.0
    for z, of in _chunks(logits, labels):
        z = z / temperature
        if activation == "softmax":
            peak = z.max(1)
            total += float((peak + np.log(np.exp(z - peak[:, None]).sum(1)) - _true(z, of)).sum())
        else:
            total += float(np.logaddexp(0, z).sum() - _true(z, of).sum())
    return total / max(len(logits), 1)


def at_temperature(thresholds: tuple[float, ...] | None, temperature: float | None) -> tuple[float, ...] | None:
    """Returns thresholds of probabilities σ(z) as those of σ(z / temperature): the same labels are said.

    The inverse has 1 / temperature.
    """
    if thresholds is None or temperature is None:
        return thresholds
    return tuple(_scaled(threshold, temperature) for threshold in thresholds)


def _scaled(threshold: float, temperature: float) -> float:
    if threshold in (0.0, 1.0):
        return threshold
    return 1 / (1 + math.exp(-math.log(threshold / (1 - threshold)) / temperature))


def _slope(logits: Logits, labels: Labels, activation: Activation, sharpness: float) -> float:
    """Returns the derivative of the mean loss by 1 / T, at 1 / T = `sharpness`."""
    total = 0.0
    for z, of in _chunks(logits, labels):
        if activation == "softmax":
            powers = np.exp(sharpness * (z - z.max(1, keepdims=True)))
            expected = (powers * z).sum(1) / powers.sum(1)
        else:
            expected = (z * np.exp(-np.logaddexp(0, -sharpness * z))).sum(1)
        total += float((expected - _true(z, of)).sum())
    return total / len(logits)


def _true(z: Logits, labels: Labels) -> Float[np.ndarray, " n"]:
    """Returns the logit of each image's class, or the sum of those of its labels."""
    if labels.ndim == 2:
        return (z * labels).sum(1)
    return np.take_along_axis(z, labels[:, None].astype(np.int64), 1)[:, 0]


def _chunks(logits: Logits, labels: Labels) -> Iterator[tuple[Logits, Labels]]:
    rows = max(_CHUNK // max(logits.shape[1], 1), 1)
    for start in range(0, len(logits), rows):
        chunk = slice(start, start + rows)
        yield logits[chunk].astype(np.float64), labels[chunk]
