"""Which example comes when: a function of the seed and the number of examples seen, and of nothing else."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int, Int32, Int64

_OF_A_CLASS = 1  # tells the seeds of a class's orders from those of an epoch's


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, examples: int) -> Int32[np.ndarray, " examples"]:
    """Returns the order of the examples in one epoch.

    Raw output of PCG64 makes it, which NumPy promises never to change, so that a run resumes under any version.
    """
    return _shuffled((seed, epoch), examples)


def _shuffled(seeds: tuple[int, ...], count: int) -> Int32[np.ndarray, " count"]:
    keys = np.random.PCG64(np.random.SeedSequence(seeds)).random_raw(count)
    order = np.argsort(keys, kind="stable").astype(np.int32)
    order.setflags(write=False)
    return order


class Order:
    """An endless stream of examples in epochs of one length, of which any stretch can be asked for.

    Without balance each epoch is a permutation of all examples. With it, a class of n examples has a share of the epoch
    in proportion to n^(1 − balance): 1 shows every class equally often. Each class has a stream of its own, pass after
    pass over its examples, so that all of them are seen equally often; an epoch takes of each stream what comes next.

    With repeats, a batch holds each of its images several times, once in each equal part of it, so that copies lie on
    different devices and in different groups of BatchNorm where these divide it (Hoffer et al. 2020; timm's
    RepeatAugSampler, whose copies lie on neighbouring ranks). As many epochs as repeats then show every example.
    """

    def __init__(
        self,
        seed: int,
        labels: Int[np.ndarray, " n"],
        balance: float = 0.0,
        *,
        repeats: int = 1,
        batch_size: int | None = None,
    ) -> None:
        """`labels` are those of the examples, 0 … classes − 1; `balance` is 0 … 1; `repeats` divides `batch_size`."""
        if repeats > 1 and (batch_size is None or batch_size % repeats):
            raise ValueError(f"{repeats} repeats need a batch that they divide, found {batch_size}")
        self.examples = len(labels)
        self._repeats, self._batch_size = repeats, batch_size or 1
        self.times: Float64[np.ndarray, " n"] = np.ones(len(labels))  # that each example is in an epoch, on average
        self._seed = seed
        self._epoch: Callable[[int], tuple[Int32[np.ndarray, " n"], Int32[np.ndarray, " n"]]] | None = None
        if balance:
            members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
            quotas = shares_of_an_epoch(np.bincount(labels), balance)
            self.times = (quotas / np.maximum(np.bincount(labels), 1))[labels]
            balanced = _Balanced(seed, tuple(members), quotas)
            self._epoch = functools.lru_cache(maxsize=4)(balanced.epoch)

    def draw(self, start: int, count: int) -> tuple[Int32[np.ndarray, " count"], Int32[np.ndarray, " count"]]:
        """Returns index and pass of the `count` examples that follow the first `start`.

        The pass says how often the example was there before; without balance and repeats it is the epoch. The stream
        runs over the ends of epochs without a gap.
        """
        numbers = np.arange(start, start + count, dtype=np.int64)
        if self._repeats == 1:
            return self._images(numbers)
        batch, row = np.divmod(numbers, self._batch_size)
        images = self._batch_size // self._repeats  # of a batch
        copy, image = np.divmod(row, images)
        indices, passes = self._images(batch * images + image)
        return indices, (passes * self._repeats + copy).astype(np.int32)

    def _images(
        self, numbers: Int64[np.ndarray, " count"]
    ) -> tuple[Int32[np.ndarray, " count"], Int32[np.ndarray, " count"]]:
        """Returns index and pass of images by their numbers in the stream in which none is repeated."""
        count = len(numbers)
        epochs, positions = np.divmod(numbers, self.examples)
        indices, passes = np.empty(count, np.int32), epochs.astype(np.int32)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            if self._epoch is None:
                indices[here] = permutation(self._seed, int(epoch), self.examples)[positions[here]]
            else:
                index, passed = self._epoch(int(epoch))
                indices[here], passes[here] = index[positions[here]], passed[positions[here]]
        return indices, passes


@dataclass(frozen=True)
class _Balanced:
    seed: int
    members: tuple[Int64[np.ndarray, " _"], ...]  # the examples of each class
    quotas: Int64[np.ndarray, " classes"]  # how many of an epoch each class has

    def epoch(self, epoch: int) -> tuple[Int32[np.ndarray, " n"], Int32[np.ndarray, " n"]]:
        """Returns the examples of an epoch and the pass of each."""
        indices, passes = [], []
        for label, (members, quota) in enumerate(zip(self.members, self.quotas.tolist(), strict=True)):
            if quota:
                passed, position = np.divmod(np.arange(epoch * quota, (epoch + 1) * quota), len(members))
                for p in np.unique(passed).tolist():
                    order = _shuffled((self.seed, label, p, _OF_A_CLASS), len(members))
                    indices.append(members[order[position[passed == p]]])
                passes.append(passed)
        order = permutation(self.seed, epoch, int(self.quotas.sum()))
        return np.concatenate(indices)[order].astype(np.int32), np.concatenate(passes)[order].astype(np.int32)


def shares_of_an_epoch(counts: Int[np.ndarray, " classes"], balance: float) -> Int64[np.ndarray, " classes"]:
    """Returns how many of an epoch's examples each class has, in proportion to count^(1 − balance).

    They add up to the number of all examples; a class that has examples has one at least.
    """
    weights = np.where(counts > 0, np.maximum(counts, 1).astype(np.float64) ** (1 - balance), 0)
    exact = weights / weights.sum() * counts.sum()
    shares = np.floor(exact).astype(np.int64)
    rest = counts.sum() - shares.sum()
    shares[np.argsort(-(exact - shares), kind="stable")[:rest]] += 1  # by the largest remainder
    for label in np.flatnonzero((counts > 0) & (shares == 0)):
        shares[np.argmax(shares)] -= 1
        shares[label] = 1
    return shares
