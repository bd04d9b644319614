"""What training minimises."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32


def cross_entropy(
    logits: Float[Array, "b classes"], label: Int32[Array, " b"], smoothing: float = 0.0
) -> Float[Array, " b"]:
    """Returns each example's cross-entropy in nats.

    With `smoothing` ε the target gives 1 − ε to the label and spreads ε over all classes (Szegedy et al. 2016,
    section 7): (1 − ε) · −log p[label] + ε · mean(−log p).
    """
    log_p = jax.nn.log_softmax(logits)
    loss = -jnp.take_along_axis(log_p, label[:, None], -1)[:, 0]
    return (1 - smoothing) * loss - smoothing * log_p.mean(-1) if smoothing else loss
