"""The focal loss."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnets.models.forward import Activation
from jaxnets.schema import NonNegative


@dataclass(frozen=True, kw_only=True)
class Focal:
    """−Σ target · (1 − p)^γ · log p with p = softmax(logits): what is easy counts less (Lin et al. 2017, equation 4).

    With γ = 0 it is the cross-entropy; weights are the paper's α (equation 5).
    """

    activation: ClassVar[Activation] = "softmax"
    gamma: NonNegative = 2.0  # γ: how much less what is easy counts; 0: the cross-entropy

    def __call__(
        self,
        logits: Float[Array, "b classes"],
        target: Float[Array, "b classes"],
        weights: Float[Array, " classes"] | None = None,
    ) -> Float[Array, " b"]:
        log_p = jax.nn.log_softmax(logits)
        missing = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(logits.dtype).tiny)  # 1 − p; 0 has no power's gradient
        if weights is not None:
            target = weights * target
        return -(target * missing**self.gamma * log_p).sum(-1)
