"""What a loss is, and the soft target that it sees."""

from typing import ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from jaxnets.models.forward import Activation


@runtime_checkable
class Loss(Protocol):
    """A loss: a frozen dataclass whose fields are its parameters and the keys of its group in the config."""

    activation: ClassVar[Activation]  # that turns logits trained with it into probabilities

    def __call__(
        self,
        logits: Float[Array, "b classes"],
        target: Float[Array, "b classes"],
        weights: Float[Array, " classes"] | None = None,
    ) -> Float[Array, " b"]:
        """Returns each example's loss in nats; `weights` multiply what the target has of each class."""
        ...


def soft_target(
    label: Int32[Array, " b"] | Float[Array, "b classes"], classes: int, smoothing: float = 0.0
) -> Float[Array, "b classes"]:
    """Returns the target distribution; the only place where a label becomes one.

    With `smoothing` ε it is (1 − ε) · label + ε / classes (Szegedy et al. 2016, section 7). Several labels per example
    (multi-hot) are smoothed towards one half, each class by itself.
    """
    if label.ndim == 2:
        return jnp.asarray(label, float) * (1 - smoothing) + smoothing / 2
    return jax.nn.one_hot(label, classes) * (1 - smoothing) + smoothing / classes
