"""The figures that training's evaluation has too, from logits that are there already."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.evaluate.predictions import Predictions
from jaxnets.metrics.metric import Metric, Outcome, Sums, Totals, sums_of
from jaxnets.recipe.losses.loss import Loss, soft_target

_ROWS = 4096  # images at a time


def sums_over(
    predictions: Predictions, loss: Loss, metrics: Sequence[Metric], thresholds: Sequence[float] | None = None
) -> dict[str, np.ndarray]:
    """Returns the sums of metrics over all images (`jaxnets.metrics`).

    Args:
        predictions: whose logits are judged.
        loss: that the metric of that name adds up.
        metrics: as an evaluation step has them.
        thresholds: of the classes where an image may have several; None for one half.
    """
    classes = predictions.logits.shape[1]
    rows = min(_ROWS, len(predictions))

    @jax.jit
    def step(logits: jax.Array, label: jax.Array, mask: jax.Array) -> Sums:
        each = loss(logits, soft_target(label, classes))
        return sums_of(metrics, Outcome(logits, label, mask, each, thresholds))

    totals = Totals()
    for start in range(0, len(predictions), rows):
        logits = predictions.logits[start : start + rows]
        label = predictions.labels[start : start + rows]
        padding = rows - len(logits)  # so that there is one program
        padded = (np.pad(x, ((0, padding), *((0, 0),) * (x.ndim - 1))) for x in (logits, label))
        logits, label = padded
        label = label.astype(np.float32 if predictions.several_labels else np.int32)
        totals.add(step(logits, jnp.asarray(label), np.arange(rows) < rows - padding))
    return totals.result()
