"""Examples mixed with one another, and their targets with them."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from jaxnets.schema import NonNegative


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    mixup: NonNegative = 0.0  # α of the Beta distribution that mixup's share is drawn from; 0: no mixup


@dataclass(frozen=True, kw_only=True)
class Mixup:
    """λ · x + (1 − λ) · x′ and the same of the targets, one λ ~ Beta(α, α) per batch (Zhang et al. 2018).

    As timm's `batch` mode: x′ is the batch in reverse, and images stay uint8, rounded.
    """

    alpha: float

    def __call__(
        self, key: Key[Array, ""], images: UInt8[Array, "b h w c"], target: Float[Array, "b classes"]
    ) -> tuple[UInt8[Array, "b h w c"], Float[Array, "b classes"]]:
        share = jax.random.beta(key, self.alpha, self.alpha, dtype=jnp.float32)
        mixed = share * images.astype(jnp.float32) + (1 - share) * images[::-1].astype(jnp.float32)
        share = share.astype(target.dtype)
        return jnp.round(mixed).astype(jnp.uint8), share * target + (1 - share) * target[::-1]
