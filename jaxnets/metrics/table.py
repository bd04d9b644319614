"""Which metrics there are: of an evaluation, of a training batch's examples, and of a training step.

A metric has no sums and no figures where it means nothing: some are of one label per image, others of several.
"""

from collections.abc import Mapping
from typing import Any

from jaxnets.metrics.balanced_accuracy import BALANCED_ACCURACY
from jaxnets.metrics.classification import ACCURACY, CLASSES, COUNT, LOSS, TOP5
from jaxnets.metrics.gradient_norm import GRADIENT_NORM
from jaxnets.metrics.metric import Metric
from jaxnets.metrics.several_labels import F1, HAMMING_LOSS, LABEL_ACCURACY, MEAN_AVERAGE_PRECISION

EVALUATION: tuple[Metric, ...] = (
    *(ACCURACY, LOSS, COUNT, TOP5, CLASSES, BALANCED_ACCURACY),
    *(MEAN_AVERAGE_PRECISION, F1, LABEL_ACCURACY, HAMMING_LOSS),
)
TRAINING: tuple[Metric, ...] = (LOSS, ACCURACY, LABEL_ACCURACY)
# The figure that says which checkpoint is best, the first that there is: with several labels per image it is one that
# no threshold and no frequent class decides.
CHIEF = ("mean_average_precision", "accuracy")
# More of a training step, by the name that config.train_metrics gives; each costs its share of the step.
OF_A_STEP: Mapping[str, Metric] = {"gradient_norm": GRADIENT_NORM}


def chief(figures: Mapping[str, Any]) -> str:
    """Returns the name of the figure that checkpoints are compared by."""
    return next(name for name in CHIEF if name in figures)
