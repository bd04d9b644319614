"""Mirror images."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, UInt8

from jaxnets.schema import ZeroToOne


@dataclass(frozen=True, kw_only=True)
class Flip:
    """Mirrors an image left to right, with a probability."""

    horizontal: ZeroToOne = 0.0  # probability; 0.5 where left and right mean the same

    def __call__(self, keys: Key[Array, " b"], images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
        mirrored = jax.vmap(lambda key: jax.random.bernoulli(key, self.horizontal))(keys)
        return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
