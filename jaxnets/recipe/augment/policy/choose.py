"""One of several arrays for each element, in the form that a compiler for TPUs makes one pass of."""

from collections.abc import Sequence

from jax import lax
from jaxtyping import Array, Int, Shaped


def choose(index: Int[Array, "..."], options: Sequence[Shaped[Array, "*s"]]) -> Shaped[Array, "*s"]:
    """Returns options[index], where the index is below their number and has their axes or fewer elements in them.

    Each of the index's bits leaves one of every two options: for n of them n − 1 choices, by ⌈log₂ n⌉ masks.
    """
    left = list(options)
    while len(left) > 1:
        odd = lax.broadcast_in_dim((index & 1) == 1, left[0].shape, range(left[0].ndim))
        halved = [lax.select(odd, second, first) for first, second in zip(left[::2], left[1::2], strict=False)]
        left = halved + left[2 * len(halved) :]
        index = index >> 1
    return left[0]
