"""The losses that a config can name."""

from dataclasses import dataclass, field, fields
from typing import Literal

from jaxnets.errors import UserError
from jaxnets.models.forward import Activation
from jaxnets.recipe.losses.cross_entropy import SigmoidCrossEntropy, SoftmaxCrossEntropy
from jaxnets.recipe.losses.focal import Focal
from jaxnets.recipe.losses.loss import Loss
from jaxnets.schema import NonNegative, ZeroToBelowOne, ZeroToOne

BALANCED = "balanced"  # class weights that are no file


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Which loss, and the parameters of each; a loss is a field here and a choice of `name`."""

    name: Literal["softmax_cross_entropy", "sigmoid_cross_entropy", "focal"] = "softmax_cross_entropy"
    label_smoothing: ZeroToBelowOne = 0.0  # share of the target that is spread over all classes
    # Of the classes, in training: balanced, so that all count the same, or a file with a line class,weight for each.
    class_weights: str | None = None  # None: each example counts the same
    class_weight_power: ZeroToOne = 1.0  # of balanced ones: 0 as they are, 1 all the same
    logit_adjustment: NonNegative = 0.0  # τ times the log of a class's frequency, added to its logit in training
    softmax_cross_entropy: SoftmaxCrossEntropy = field(default_factory=SoftmaxCrossEntropy)
    sigmoid_cross_entropy: SigmoidCrossEntropy = field(default_factory=SigmoidCrossEntropy)
    focal: Focal = field(default_factory=Focal)


def find_loss(spec: LossConfig, *, several_labels: bool = False) -> Loss:
    """Returns the loss that a config names, with its parameters.

    Raises:
        UserError: if images may have several labels, and the loss takes exactly one to be right.
    """
    loss: Loss = getattr(spec, spec.name)
    if several_labels and loss.activation != "sigmoid":
        fit = [name for name in (entry.name for entry in fields(spec)) if _takes_several(getattr(spec, name))]
        raise UserError(
            f"the data has images with several labels, and the loss {spec.name} takes exactly one of the classes to be "
            f"right: train with --config.loss.name={' or '.join(fit)}"
        )
    return loss


def activation_of(loss: Loss, *, several_labels: bool) -> Activation:
    """Returns what turns the logits of a model that was trained with a loss into its answer.

    Where exactly one class is right it is the softmax, whatever the loss: of classes that are each decided by
    themselves, with probabilities p = σ(z), that class i is right and no other has the chance p_i · Π (1 − p_j), which
    is in proportion to p_i / (1 − p_i) = exp(z_i). Given that one is right, these are the shares of the softmax.
    """
    return loss.activation if several_labels else "softmax"


def check_threshold(spec: LossConfig, classes: int, *, several_labels: bool = False) -> None:
    """Refuses a threshold of the sigmoid cross-entropy that smoothed labels are all above, or all below.

    Raises:
        UserError: with what smoothing makes of a label.
    """
    threshold, smoothing = spec.sigmoid_cross_entropy.threshold, spec.label_smoothing
    if spec.name != "sigmoid_cross_entropy" or threshold is None:
        return
    low = smoothing / (2 if several_labels else classes)
    high = 1 - smoothing + low
    if not low <= threshold < high:
        raise UserError(
            f"config.loss.sigmoid_cross_entropy.threshold {threshold:g} makes all classes of an image "
            f"{'right' if threshold < low else 'wrong'}: with config.loss.label_smoothing {smoothing:g} the target "
            f"of a class is {low:.4g} or {high:.4g}. Give a threshold between these (timm's recipes have 0.2), or none"
        )


def _takes_several(loss: object) -> bool:
    return isinstance(loss, Loss) and loss.activation == "sigmoid"
