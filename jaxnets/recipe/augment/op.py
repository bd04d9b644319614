"""What an augmentation is, and how a tuple of them is applied to a batch."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Int32, Key, UInt8

from jaxnets.preprocess import Preprocess


class Keys(NamedTuple):
    """What one op draws from, for each example."""

    each_epoch: Key[Array, " b"]
    lasting: Key[Array, " b"]  # the same in every epoch
    epoch: Int32[Array, " b"]

    def fold(self, number: int) -> "Keys":
        """Returns what one of several draws of the op draws from."""

        def folded(keys: Key[Array, " b"]) -> Key[Array, " b"]:
            return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)

        return Keys(folded(self.each_epoch), folded(self.lasting), self.epoch)


@runtime_checkable
class Op(Protocol):
    """An augmentation: a frozen dataclass whose fields are its parameters, and a pure function of keys and images.

    Its fields are the keys of its group in the config; with their defaults, it leaves every image as it is.
    """

    def __call__(self, keys: Keys, images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
        """Returns the images changed, each by what its own key draws."""
        ...


@runtime_checkable
class Unbound(Protocol):
    """The keys of an op that needs to know more than them: how images are normalised, and their size."""

    def bind(self, preprocess: Preprocess) -> Op | None:
        """Returns the op; None if it does nothing."""
        ...


def keys_of(number: int, *, seed: int, epoch: Int32[Array, " b"], index: Int32[Array, " b"]) -> Keys:
    """Returns what the op of this number draws from: functions of (seed, epoch, index, number) alone.

    Two ops of one recipe have two numbers, so that they never share a draw.
    """

    def key(epoch: Array, index: Array) -> Array:
        own = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), epoch), index)
        return jax.random.fold_in(own, number)

    return Keys(jax.vmap(key)(epoch, index), jax.vmap(key)(epoch * 0 + _EVERY_EPOCH, index), epoch)


_EVERY_EPOCH = 2**31 - 3  # in place of an epoch; train/step.py has the numbers above


def augment(
    ops: Sequence[Op],
    images: UInt8[Array, "b h w c"],
    *,
    seed: int,
    epoch: Int32[Array, " b"],
    index: Int32[Array, " b"],
) -> UInt8[Array, "b h w c"]:
    """Applies the ops in their order; what an example becomes is a function of (seed, epoch, index) alone."""
    for number, op in enumerate(ops):
        images = op(keys_of(number, seed=seed, epoch=epoch, index=index), images)
    return images
