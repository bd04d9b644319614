"""What an augmentation is, and how a tuple of them is applied to a batch."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import jax
from jaxtyping import Array, Int32, Key, UInt8


@runtime_checkable
class Op(Protocol):
    """An augmentation: a frozen dataclass whose fields are its parameters, and a pure function of keys and images.

    Its fields are the keys of its group in the config; with their defaults, it leaves every image as it is.
    """

    def __call__(self, keys: Key[Array, " b"], images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
        """Returns the images changed, each by what its own key draws."""
        ...


def augment(
    ops: Sequence[Op],
    images: UInt8[Array, "b h w c"],
    *,
    seed: int,
    epoch: Int32[Array, " b"],
    index: Int32[Array, " b"],
) -> UInt8[Array, "b h w c"]:
    """Applies the ops in their order; what an example becomes is a function of (seed, epoch, index) alone.

    The key of an op is folded from these and the op's number in the tuple, so that two ops never share a draw.
    """
    if not ops:
        return images
    examples = jax.vmap(lambda e, i: jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), e), i))(epoch, index)
    for number, op in enumerate(ops):
        images = op(jax.vmap(lambda key, n=number: jax.random.fold_in(key, n))(examples), images)
    return images
