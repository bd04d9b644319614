"""Which example comes when: a function of the seed and the number of examples seen, and of nothing else."""

import functools

import numpy as np
from jaxtyping import Int32


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, examples: int) -> Int32[np.ndarray, " examples"]:
    """Returns the order of the examples in one epoch.

    Raw output of PCG64 makes it, which NumPy promises never to change, so that a run resumes under any version.
    """
    keys = np.random.PCG64(np.random.SeedSequence((seed, epoch))).random_raw(examples)
    order = np.argsort(keys, kind="stable").astype(np.int32)
    order.setflags(write=False)
    return order


def draw(
    seed: int, examples: int, start: int, count: int
) -> tuple[Int32[np.ndarray, " count"], Int32[np.ndarray, " count"]]:
    """Returns index and epoch of the `count` examples that follow the first `start`.

    The stream runs over the ends of epochs without a gap: each epoch is a new permutation of all examples.
    """
    epochs, positions = np.divmod(np.arange(start, start + count, dtype=np.int64), examples)
    indices = np.empty(count, np.int32)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = permutation(seed, int(epoch), examples)[positions[here]]
    return indices, epochs.astype(np.int32)
