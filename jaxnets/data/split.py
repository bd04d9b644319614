"""Which examples are held out: for each a function of the seed and its own name or content, never of its position."""

from typing import Literal

import numpy as np
from jaxtyping import Int, Int64, UInt64

Purpose = Literal["test", "validation"]
_SALTS: dict[Purpose, int] = {"test": 1, "validation": 2}  # so that a validation split is no function of the test split


def hold_out(
    identities: UInt64[np.ndarray, " n"], labels: Int[np.ndarray, " n"], share: float, seed: int, purpose: Purpose
) -> tuple[Int64[np.ndarray, " kept"], Int64[np.ndarray, " held_out"]]:
    """Divides examples by hashes of what they are: an example is held out where its hash lies below the share.

    Whoever adds, removes or renames examples therefore moves no other across, which a split with exact quotas would do:
    of n examples of a class, share · n are held out on average, give or take √(share · (1 − share) · n). Where a class
    of two or more would so have nothing on one side, the example whose hash comes nearest goes there; a class of one is
    kept. A share of 0 holds out nothing.

    Args:
        identities: a hash of each example's own name or content (`Split.identities`).
        labels: class of each example.
        share: that is held out, 0 … 1.
        seed: at least 0; another seed holds out others.
        purpose: of what is held out; the same seed holds out other examples for another purpose.

    Returns:
        Two sorted arrays of indices, which share none and hold all together: the kept ones, the held-out ones.

    Raises:
        ValueError: if the share is outside 0 … 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share that is held out must be in 0 … 1, found {share}")
    if share == 0 or not len(labels):
        return np.arange(len(labels)), np.zeros(0, np.int64)
    start = np.random.SeedSequence([seed, _SALTS[purpose]]).generate_state(1, np.uint64)
    # 53 bits, as many as a float64 holds exactly.
    drawn = (_mix(identities.astype(np.uint64) ^ start) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    held_out = drawn < share
    # By class, and by hash within it: the first and the last of each class are those that it may lack.
    order = np.lexsort((drawn, labels))
    sorted_labels = np.asarray(labels)[order]
    first = np.flatnonzero(np.r_[True, sorted_labels[1:] != sorted_labels[:-1]])
    count = np.diff(np.r_[first, len(labels)])
    held_out[order[first[count > 1]]] = True
    held_out[order[(first + count - 1)]] = False
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _mix(x: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): neighbouring numbers come out unrelated."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
