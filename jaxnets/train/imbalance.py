"""What a run does about classes that are rare, from its config and its data."""

import numpy as np
from jaxtyping import Bool, Float

from jaxnets.config import Config
from jaxnets.data.dataset import Dataset
from jaxnets.data.weights_file import read_weights
from jaxnets.errors import UserError, quoted
from jaxnets.recipe.losses.imbalance import (
    Rebalance,
    balanced_positive_weights,
    balanced_weights,
    logit_adjustment,
)
from jaxnets.recipe.losses.table import BALANCED, LossConfig


def class_weights(
    counts: Float[np.ndarray, " classes"],
    spec: LossConfig,
    class_names: tuple[str, ...],
    *,
    images: float | None = None,
) -> Float[np.ndarray, " classes"]:
    """Returns the weight of each class in the loss, 1 for all where the config asks for none.

    Balanced ones are `balanced_weights`, and where an image may have several labels, or none,
    `balanced_positive_weights`; those of a file are taken as they are.

    Args:
        counts: training images that have each class, as often as they are shown.
        spec: of which `class_weights` and `class_weight_power` are read.
        class_names: as many, for the messages and the file.
        images: all that there are, where each may have several labels; None: each has one.

    Raises:
        UserError: for a class without training images, or a file that does not fit.
    """
    counts = np.asarray(counts, np.float64)
    if spec.class_weights is None:
        return np.ones(len(class_names))
    asked = f"config.loss.class_weights {spec.class_weights}"
    _refuse_without(counts > 0, class_names, asked, "no training images")
    if spec.class_weights != BALANCED:
        return np.array(read_weights(spec.class_weights, class_names))
    if images is None:
        return balanced_weights(counts, spec.class_weight_power)
    _refuse_without(counts < images, class_names, asked, "no training images without it")
    return balanced_positive_weights(counts, images, spec.class_weight_power)


def make_rebalance(config: Config, data: Dataset) -> Rebalance | None:
    """Returns what the config asks for against rare classes; None if nothing.

    Frequencies are those of an epoch, as config.data.balance makes it: what that makes up for is not made up for twice.

    Raises:
        UserError: if it does not fit the data or the loss.
    """
    spec = config.loss
    if spec.class_weights is None and not spec.logit_adjustment:
        return None
    counts, images = data.class_counts(), float(data.order.times.sum()) if data.several_labels else None
    weights = shift = None
    if spec.class_weights is not None:
        weights = tuple(class_weights(counts, spec, data.class_names, images=images).tolist())
    if spec.logit_adjustment:
        asked = f"config.loss.logit_adjustment {spec.logit_adjustment:g}"
        if getattr(spec, spec.name).activation != "softmax":
            raise UserError(
                f"{asked} is for losses that have a softmax, and {spec.name} decides each class by itself: use "
                f"config.loss.class_weights=balanced instead"
            )
        _refuse_without(counts > 0, data.class_names, asked, "no training images")
        shift = tuple(logit_adjustment(counts, spec.logit_adjustment).tolist())
    return Rebalance(weights=weights, shift=shift)


def _refuse_without(has: Bool[np.ndarray, " classes"], class_names: tuple[str, ...], asked: str, what: str) -> None:
    if missing := [quoted(name) for name, known in zip(class_names, has, strict=True) if not known]:
        few, more = ", ".join(missing[:10]), f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise UserError(
            f"{asked} needs images of each class to go by, and {few}{more} {'has' if len(missing) == 1 else 'have'} "
            f"{what}: add some, take what has none out of the classes, or leave the key out"
        )
