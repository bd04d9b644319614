"""What makes up for classes that are rare in training: weights of the classes, and logit adjustment."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxnets.recipe.losses.loss import Loss


@dataclass(frozen=True, kw_only=True)
class Rebalance:
    """A loss as training has it; evaluation has the plain one."""

    weights: tuple[float, ...] | None = None  # of each class, as the loss takes them
    shift: tuple[float, ...] | None = None  # that is added to each class's logit

    def __call__(
        self, loss: Loss, logits: Float[Array, "b classes"], target: Float[Array, "b classes"]
    ) -> Float[Array, " b"]:
        if self.shift is not None:
            logits = logits + jnp.asarray(self.shift, logits.dtype)
        return loss(logits, target, None if self.weights is None else jnp.asarray(self.weights, logits.dtype))


def balanced_weights(counts: Float[np.ndarray, " classes"], power: float) -> Float[np.ndarray, " classes"]:
    """Returns weights in proportion to count^−power, whose mean over the examples is 1.

    So the loss, and with it the rate that fits, stays about as large as without. With `power` 1 they are n / (classes ·
    count), scikit-learn's "balanced": every class weighs the same in all; with 0.5 they are halfway, in the logarithm.

    Args:
        counts: examples of each class, above 0.
        power: 0…1; 0 gives all classes the weight 1.
    """
    raised = counts**-power
    return raised * counts.sum() / (raised * counts).sum()


def balanced_positive_weights(
    counts: Float[np.ndarray, " classes"], images: float, power: float
) -> Float[np.ndarray, " classes"]:
    """Returns (images without the class / images with it)^power, for a loss that asks of each class by itself.

    With `power` 1 what has a class weighs as much, in all, as what has it not.

    Args:
        counts: images that have each class, above 0 and below `images`.
        images: all there are.
        power: 0…1; 0 gives all classes the weight 1.
    """
    return ((images - counts) / counts) ** power


def logit_adjustment(counts: Float[np.ndarray, " classes"], tau: float) -> Float[np.ndarray, " classes"]:
    """Returns τ · log prior, that training adds to the logits (Menon et al. 2021, equation 10).

    What is learned then makes up for the priors, so that the plain logits are those of classes that are equally
    frequent (with τ = 1: of the least balanced error).

    Args:
        counts: examples of each class, above 0.
    """
    return tau * np.log(counts / counts.sum())
