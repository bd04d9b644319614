"""Batches from examples: an endless shuffled stream for training, one exact pass for evaluation."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Int64

from jaxnets.data.batch import Batch
from jaxnets.data.examples import Example, Examples
from jaxnets.data.order import Order

_BUFFERED_BATCHES = 4


def train_stream(
    examples: Examples,
    *,
    order: Order,
    batch_size: int,
    start_step: int,
    stop_step: int,
    threads: int,
    rows: Int64[np.ndarray, " n"] | None = None,
) -> Iterator[Batch]:
    """Yields the full batches of steps start_step … stop_step − 1, decoded ahead by `threads` threads.

    Of each batch only the given `rows`, ascending, are read; by default all.
    """
    chosen = np.arange(batch_size) if rows is None else rows
    size = len(chosen)

    def batch_indices(step: int) -> tuple[np.ndarray, np.ndarray]:
        index, epoch = order.draw(step * batch_size, batch_size)
        return index[chosen], epoch[chosen]

    def assemble(step: int, read: list[Example]) -> Batch:
        index, epoch = batch_indices(step)
        return _batch(read, index, epoch)

    def read_at(position: int) -> Example:
        step, row = divmod(position, size)
        index, _ = order.draw(step * batch_size + int(chosen[row]), 1)
        return examples.read_substituting(int(index[0]))

    positions = _threaded(read_at, start_step * size, stop_step * size, size, threads)
    for step in range(start_step, stop_step):
        yield assemble(step, [next(positions) for _ in range(size)])


def evaluation_batches(
    examples: Examples, *, batch_size: int, threads: int, rows: Int64[np.ndarray, " n"] | None = None
) -> Iterator[Batch]:
    """Yields every example exactly once, in order; the last batch is padded with black and masked.

    Of each batch only the given `rows`, ascending, are read; by default all.
    """
    chosen = np.arange(batch_size) if rows is None else rows
    starts = range(0, len(examples), batch_size)
    wanted = rows_within(len(examples), batch_size, chosen)

    def read_at(position: int) -> Example:
        return examples.read(int(wanted[position]))

    reads = (
        map(read_at, range(len(wanted)))
        if examples.in_memory
        else _threaded(read_at, 0, len(wanted), len(chosen), threads)
    )
    padding = Example(np.zeros(examples.shape, np.uint8), 0, False, 1.0)
    for start in starts:
        index = (start + chosen).astype(np.int32)
        batch = [next(reads) if i < len(examples) else padding for i in index]
        yield _batch(batch, index, np.zeros_like(index))


def rows_within(examples: int, batch_size: int, rows: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " m"]:
    """Returns which of so many examples, taken in order, fall into the given rows of their batches."""
    positions = np.add.outer(np.arange(0, examples, batch_size), rows).reshape(-1)
    return positions[positions < examples]


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
        "aspect": np.array([example.aspect for example in read], np.float32),
    }
    return Batch(**arrays)
