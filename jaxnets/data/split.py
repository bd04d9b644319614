"""Holding out a share of the examples, class by class, so that the same seed always holds out the same ones."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int, Int64


def stratified_split(
    labels: Int[np.ndarray, " n"], share: float, seed: int
) -> tuple[Int64[np.ndarray, " kept"], Int64[np.ndarray, " held_out"]]:
    """Divides examples so that each class gives its share.

    Args:
        labels: class of each example.
        share: of each class that is held out, 0 … 1. The number is rounded; a class of two or more leaves at least one
            example on either side, and a class of one keeps it. A share of 0 holds out nothing.
        seed: at least 0; which examples are held out follows from it, and from nothing else.

    Returns:
        Two sorted arrays of indices, which share none and hold all together: the kept ones, the held-out ones.

    Raises:
        ValueError: if the share is outside 0 … 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share that is held out must be in 0 … 1, found {share}")

    def quota(count: int) -> int:
        if share == 0:
            return 0
        return min(max(round(share * count), 1), count - 1)

    return hold_out(labels, quota, seed)


def hold_out(
    labels: Int[np.ndarray, " n"], quota: Callable[[int], int], seed: int
) -> tuple[Int64[np.ndarray, " kept"], Int64[np.ndarray, " held_out"]]:
    """Holds out `quota(count)` of the `count` examples of each class; as `stratified_split` otherwise.

    Raw output of PCG64 orders them: NumPy promises that it never changes, whereas `Generator.permutation` may give
    another order in another version, and a resumed run would then train on what it was tested with.
    """
    labels = np.asarray(labels)
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        keys = np.random.PCG64(np.random.SeedSequence([seed, int(label)])).random_raw(len(members))
        order = np.argsort(keys, kind="stable")
        held_out[members[order[: quota(len(members))]]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
