"""Cross-entropy over all classes together, and over each by itself."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Array, Float

from jaxnets.models.forward import Activation


@dataclass(frozen=True, kw_only=True)
class SoftmaxCrossEntropy:
    """−Σ target · log softmax(logits)."""

    activation: ClassVar[Activation] = "softmax"

    def __call__(self, logits: Float[Array, "b classes"], target: Float[Array, "b classes"]) -> Float[Array, " b"]:
        import optax

        return optax.softmax_cross_entropy(logits, target)


@dataclass(frozen=True, kw_only=True)
class SigmoidCrossEntropy:
    """Binary cross-entropy of each class by itself, summed over the classes or their mean."""

    activation: ClassVar[Activation] = "sigmoid"
    over_classes: Literal["sum", "mean"] = "sum"  # timm takes the mean: a loss that is 1 / classes as large

    def __call__(self, logits: Float[Array, "b classes"], target: Float[Array, "b classes"]) -> Float[Array, " b"]:
        import optax

        each = optax.sigmoid_binary_cross_entropy(logits, target)
        return each.sum(-1) if self.over_classes == "sum" else each.mean(-1)
