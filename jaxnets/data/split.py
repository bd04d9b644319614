"""Which examples are held out: for each a function of the seed and its own name or content, never of its position."""

from typing import Literal

import numpy as np
from jaxtyping import Float64, Int, Int64, UInt64

Purpose = Literal["test", "validation", "folds", "shots"]
_SALTS: dict[Purpose, int] = {"test": 1, "validation": 2, "folds": 3, "shots": 4}  # so that none is another's function


def hold_out(
    identities: UInt64[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    share: float,
    seed: int,
    purpose: Purpose,
    groups: UInt64[np.ndarray, " n"] | None = None,
) -> tuple[Int64[np.ndarray, " kept"], Int64[np.ndarray, " held_out"]]:
    """Divides examples by hashes of what they are: an example is held out where its hash lies below the share.

    Whoever adds, removes or renames examples therefore moves no other across, which a split with exact quotas would do:
    of n examples of a class, share · n are held out on average, give or take √(share · (1 − share) · n). Where a class
    of two or more would so have nothing on one side, the example whose hash comes nearest goes there; a class of one is
    kept. A share of 0 holds out nothing. Groups are divided in the place of their examples, so that none is on both
    sides.

    Args:
        identities: a hash of each example's own name or content (`Split.identities`).
        labels: class of each example.
        share: that is held out, 0 … 1.
        seed: at least 0; another seed holds out others.
        purpose: of what is held out; the same seed holds out other examples for another purpose.
        groups: a hash of each example's group, where examples belong together (`Split.groups`).

    Returns:
        Two sorted arrays of indices, which share none and hold all together: the kept ones, the held-out ones.

    Raises:
        ValueError: if the share is outside 0 … 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share that is held out must be in 0 … 1, found {share}")
    if share == 0 or not len(labels):
        return np.arange(len(labels)), np.zeros(0, np.int64)
    unit = _units(len(labels), groups)
    drawn = uniform(identities if groups is None else groups, seed, purpose)
    held_out = np.zeros(unit.max() + 1, bool)
    held_out[unit] = drawn < share
    # By class, and by hash within it: the first and the last of each class are those that it may lack.
    order = np.lexsort((drawn, labels))
    sorted_labels = np.asarray(labels)[order]
    first = np.flatnonzero(np.r_[True, sorted_labels[1:] != sorted_labels[:-1]])
    last = np.r_[first[1:], len(labels)] - 1
    several = unit[order[first]] != unit[order[last]]
    held_out[unit[order[first[several]]]] = True
    held_out[unit[order[last]]] = False
    return np.flatnonzero(~held_out[unit]), np.flatnonzero(held_out[unit])


def fold_of(
    identities: UInt64[np.ndarray, " n"], folds: int, seed: int, groups: UInt64[np.ndarray, " n"] | None = None
) -> Int64[np.ndarray, " n"]:
    """Returns the fold of each example, 0 … folds − 1: a function of the seed and its own hash, or of its group's."""
    return (uniform(identities if groups is None else groups, seed, "folds") * folds).astype(np.int64)


def few_of_each(
    identities: UInt64[np.ndarray, " n"], labels: Int[np.ndarray, " n"], shots: int, seed: int
) -> Int64[np.ndarray, " m"]:
    """Returns, sorted, the `shots` examples of each class whose hashes come first; all of a class that has no more."""
    order = np.lexsort((uniform(identities, seed, "shots"), labels))
    sorted_labels = np.asarray(labels)[order]
    first = np.flatnonzero(np.r_[True, sorted_labels[1:] != sorted_labels[:-1]])
    rank = np.arange(len(order)) - np.repeat(first, np.diff(np.r_[first, len(order)]))
    return np.sort(order[rank < shots])


def uniform(identities: UInt64[np.ndarray, " n"], seed: int, purpose: Purpose) -> Float64[np.ndarray, " n"]:
    """Returns a number in 0 … 1 for each hash, as if drawn evenly; another for another seed and purpose."""
    start = np.random.SeedSequence([seed, _SALTS[purpose]]).generate_state(1, np.uint64)
    # 53 bits, as many as a float64 holds exactly.
    return (_mix(identities.astype(np.uint64) ^ start) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _units(examples: int, groups: UInt64[np.ndarray, " n"] | None) -> Int64[np.ndarray, " n"]:
    """Returns a number for each example, the same for those that must not be divided."""
    return np.arange(examples) if groups is None else np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _mix(x: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): neighbouring numbers come out unrelated."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
