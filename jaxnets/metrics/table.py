"""Which metrics there are: of an evaluation, of a training batch's examples, and of a training step."""

from collections.abc import Mapping

from jaxnets.metrics.balanced_accuracy import BALANCED_ACCURACY
from jaxnets.metrics.classification import ACCURACY, CLASSES, COUNT, LOSS, TOP5
from jaxnets.metrics.gradient_norm import GRADIENT_NORM
from jaxnets.metrics.metric import Metric

EVALUATION: tuple[Metric, ...] = (ACCURACY, LOSS, COUNT, TOP5, CLASSES, BALANCED_ACCURACY)
TRAINING: tuple[Metric, ...] = (LOSS, ACCURACY)
# More of a training step, by the name that config.train_metrics gives; each costs its share of the step.
OF_A_STEP: Mapping[str, Metric] = {"gradient_norm": GRADIENT_NORM}
