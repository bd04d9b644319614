"""Batches from examples: an endless shuffled stream for training, one exact pass for evaluation."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxnets.data.batch import Batch
from jaxnets.data.examples import Example, Examples
from jaxnets.data.order import draw

_BUFFERED_BATCHES = 4


def train_stream(
    examples: Examples, *, seed: int, batch_size: int, start_step: int, stop_step: int, threads: int
) -> Iterator[Batch]:
    """Yields the full batches of steps start_step … stop_step − 1, decoded ahead by `threads` threads."""

    def batch_indices(step: int) -> tuple[np.ndarray, np.ndarray]:
        return draw(seed, len(examples), step * batch_size, batch_size)

    def assemble(step: int, read: list[Example]) -> Batch:
        index, epoch = batch_indices(step)
        return _batch(read, index, epoch)

    def read_at(position: int) -> Example:
        index, _ = draw(seed, len(examples), position, 1)
        return examples.read_substituting(int(index[0]))

    positions = _threaded(read_at, start_step * batch_size, stop_step * batch_size, batch_size, threads)
    for step in range(start_step, stop_step):
        yield assemble(step, [next(positions) for _ in range(batch_size)])


def evaluation_batches(examples: Examples, *, batch_size: int, threads: int) -> Iterator[Batch]:
    """Yields every example exactly once, in order; the last batch is padded with black and masked."""
    reads = (
        map(examples.read, range(len(examples)))
        if examples.in_memory
        else _threaded(examples.read, 0, len(examples), batch_size, threads)
    )
    for start in range(0, len(examples), batch_size):
        read = [next(reads) for _ in range(min(batch_size, len(examples) - start))]
        padding = [Example(np.zeros_like(read[0].image), 0, False)] * (batch_size - len(read))
        index = np.arange(start, start + batch_size, dtype=np.int32)
        yield _batch(read + padding, index, np.zeros_like(index))


def _threaded(
    read: Callable[[int], Example], start: int, stop: int, batch_size: int, threads: int
) -> Iterator[Example]:
    import grain  # 0.7 s to import, and only needed by what streams

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=_BUFFERED_BATCHES * batch_size)
    return iter(grain.MapDataset.range(start, stop).map(read).to_iter_dataset(options))


def _batch(read: list[Example], index: np.ndarray, epoch: np.ndarray) -> Batch:
    # NumPy arrays, until the caller puts them on a device.
    arrays: dict[str, Any] = {
        "image": np.stack([example.image for example in read]),
        "label": np.array([example.label for example in read], np.int32),
        "mask": np.array([example.readable for example in read]),
        "index": index,
        "epoch": epoch,
    }
    return Batch(**arrays)
