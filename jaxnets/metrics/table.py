"""Which metrics there are: of an evaluation, of a training batch's examples, and of a training step.

A metric has no sums and no figures where it means nothing: some are of one label per image, others of several.
"""

import math
from collections.abc import Mapping
from typing import Any

from jaxnets.metrics.balanced_accuracy import BALANCED_ACCURACY
from jaxnets.metrics.classification import ACCURACY, CLASSES, COUNT, LOSS, TOP5
from jaxnets.metrics.gradient_norm import GRADIENT_NORM
from jaxnets.metrics.macro_f1 import MACRO_F1
from jaxnets.metrics.metric import Metric
from jaxnets.metrics.several_labels import F1, HAMMING_LOSS, LABEL_ACCURACY, MEAN_AVERAGE_PRECISION

EVALUATION: tuple[Metric, ...] = (
    *(ACCURACY, LOSS, COUNT, TOP5, CLASSES, BALANCED_ACCURACY, MACRO_F1),
    *(MEAN_AVERAGE_PRECISION, F1, LABEL_ACCURACY, HAMMING_LOSS),
)
TRAINING: tuple[Metric, ...] = (LOSS, ACCURACY, LABEL_ACCURACY)
# The figure that says which checkpoint is best, the first that there is: with several labels per image it is one that
# no threshold and no frequent class decides.
CHIEF = ("mean_average_precision", "accuracy")
# More of a training step, by the name that config.train_metrics gives; each costs its share of the step.
OF_A_STEP: Mapping[str, Metric] = {"gradient_norm": GRADIENT_NORM}


def chief(figures: Mapping[str, Any], chosen: str | None = None) -> str:
    """Returns the name of the figure that weights are compared by: the one that was chosen, as config.best does."""
    return chosen or next(name for name in CHIEF if name in figures)


def score(figures: Mapping[str, Any], chosen: str | None = None) -> tuple[float, float]:
    """Returns what is larger the better the figures of an evaluation are: by the chief one, between equals by the loss.

    A figure that is no number, as without an image of any class, or that was saved as null, is the worst there is.
    """
    name = chief(figures, chosen)
    loss = _larger_is_better("loss", figures["loss"]) if "loss" in figures else math.inf  # earlier versions noted none
    return _larger_is_better(name, figures.get(name)), loss


def _larger_is_better(name: str, value: float | None) -> float:
    if value is None or math.isnan(value):
        return -math.inf
    return -value if name == "loss" else value
