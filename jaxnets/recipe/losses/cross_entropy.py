"""Cross-entropy over all classes together, and over each by itself."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
from jaxtyping import Array, Float

from jaxnets.models.forward import Activation
from jaxnets.schema import ZeroToBelowOne


@dataclass(frozen=True, kw_only=True)
class SoftmaxCrossEntropy:
    """−Σ weight · target · log softmax(logits).

    As PyTorch's `CrossEntropyLoss(weight)` of class probabilities, whose mean divides by the number of examples. (Of
    class indices it divides by the sum of their weights; the same for weights whose mean over the examples is 1, but
    for batches that differ in it, and then no sum over examples any more.)
    """

    activation: ClassVar[Activation] = "softmax"

    def __call__(
        self,
        logits: Float[Array, "b classes"],
        target: Float[Array, "b classes"],
        weights: Float[Array, " classes"] | None = None,
    ) -> Float[Array, " b"]:
        import optax

        return optax.softmax_cross_entropy(logits, target if weights is None else weights * target)


@dataclass(frozen=True, kw_only=True)
class SigmoidCrossEntropy:
    """Binary cross-entropy of each class by itself, summed over the classes or their mean.

    Weights multiply the term of what has the class, −target · log σ(logit), as `pos_weight` of PyTorch's
    `BCEWithLogitsLoss`. As timm's `BinaryCrossEntropy`, of targets that are smoothed and mixed before; with a
    `threshold` both partners of a mix are wholly there once their shares exceed it (Wightman et al. 2021, section 3).
    """

    activation: ClassVar[Activation] = "sigmoid"
    over_classes: Literal["sum", "mean"] = "sum"  # timm takes the mean: a loss that is 1 / classes as large
    threshold: ZeroToBelowOne | None = None  # targets above it become 1, all others 0; None: they stay as they are

    def __call__(
        self,
        logits: Float[Array, "b classes"],
        target: Float[Array, "b classes"],
        weights: Float[Array, " classes"] | None = None,
    ) -> Float[Array, " b"]:
        import optax

        if self.threshold is not None:
            target = (target > self.threshold).astype(target.dtype)
        if weights is None:
            each = optax.sigmoid_binary_cross_entropy(logits, target)
        else:
            yes, no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
            each = -(weights * target * yes + (1 - target) * no)
        return each.sum(-1) if self.over_classes == "sum" else each.mean(-1)
