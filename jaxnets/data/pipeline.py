"""Batches from examples: an endless shuffled stream for training, one exact pass for evaluation."""

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from jaxnets.data.allocator import keep_freed_memory
from jaxnets.data.batch import Batch, batch_labels
from jaxnets.data.boxes import Boxes, BoxOf
from jaxnets.data.examples import Examples
from jaxnets.data.loader import Assembly, Loader
from jaxnets.data.order import Order

_BATCHES_AHEAD = 4  # at most, that are made before they are asked for
_COPIED_AT_ONCE = 2 * 2**20  # bytes, about, of images that only have to be copied
_BYTES_AHEAD = 256 * 2**20  # that they may fill; one is made ahead whatever its size


def train_stream(
    examples: Examples,
    *,
    order: Order,
    batch_size: int,
    start_step: int,
    stop_step: int,
    threads: int,
    rows: Int64[np.ndarray, " n"] | None = None,
    boxes: Boxes | None = None,
) -> Loader:
    """Yields the full batches of steps start_step … stop_step − 1, made ahead by `threads` threads.

    Of each batch only the given `rows`, ascending, are read; by default all. Without threads a batch is made when it is
    asked for. The batches are the same for any number of them. `boxes` are what is cut out of images that are `cut`.
    """
    if examples.cut != (boxes is not None):
        raise ValueError("boxes are given for images that are cut, and for no others")
    chosen = np.arange(batch_size) if rows is None else rows

    images = _Arrays((len(chosen), *examples.shape))

    def begin(step: int) -> _Rows:
        index, epoch = order.draw(step * batch_size, batch_size)
        index, epoch = index[chosen], epoch[chosen]
        if examples.copied:
            return _Copies(examples, images.take(), index, epoch)
        return _Training(examples, images.take(), index, epoch, None if boxes is None else boxes(index, epoch))

    return _loader(begin, start_step, stop_step, examples, len(chosen), threads)


def evaluation_batches(
    examples: Examples, *, batch_size: int, threads: int, rows: Int64[np.ndarray, " n"] | None = None
) -> Iterator[Batch]:
    """Yields every example exactly once, in order; the last batch is padded with black and masked.

    Of each batch only the given `rows`, ascending, are read; by default all.
    """
    chosen = np.arange(batch_size) if rows is None else rows

    images = _Arrays((len(chosen), *examples.shape))

    def begin(number: int) -> _Rows:
        index = (number * batch_size + chosen).astype(np.int32)
        return _Evaluation(examples, images.take(), index, np.zeros_like(index))

    batches = -(-len(examples) // batch_size)
    return _loader(begin, 0, batches, examples, len(chosen), 0 if examples.in_memory else threads)


def _loader(
    begin: Callable[[int], Assembly], start: int, stop: int, examples: Examples, rows: int, threads: int
) -> Loader:
    keep_freed_memory()
    fits = _BYTES_AHEAD // (rows * math.prod(examples.shape))
    return Loader(begin, start, stop, threads=threads, ahead=min(_BATCHES_AHEAD, fits))


def rows_within(examples: int, batch_size: int, rows: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " m"]:
    """Returns which of so many examples, taken in order, fall into the given rows of their batches."""
    positions = np.add.outer(np.arange(0, examples, batch_size), rows).reshape(-1)
    return positions[positions < examples]


class _Arrays:
    """Gives out arrays of one shape, whose memory it uses again when nobody holds them any more.

    Fresh memory is zeroed by the system before it is written to, which costs a twentieth of what decoding does. JAX may
    keep an array of the host's as it is, so that only the array itself can say when it is free.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._free: list[Any] = []  # arrays of bytes

    def take(self) -> UInt8[np.ndarray, "..."]:
        memory: Any = self._free.pop() if self._free else np.empty(math.prod(self._shape), np.uint8)
        # Seen through a memoryview: views of the array hold this one then, and not what lies below it.
        array = np.frombuffer(memoryview(memory), np.uint8)
        weakref.finalize(array, self._free.append, memory).atexit = False
        return array.reshape(self._shape)


class _Rows:
    """A batch whose rows are read into one array; `read` says which example each of them is in the end."""

    def __init__(
        self,
        examples: Examples,
        image: UInt8[np.ndarray, "b h w c"],
        index: Int32[np.ndarray, " b"],
        epoch: Int32[np.ndarray, " b"],
        boxes: Sequence[BoxOf] | None = None,  # of each row, where they are cut
    ) -> None:
        self._examples, self._image, self._index, self._epoch = examples, image, index, epoch
        self._boxes = boxes
        self.rows = len(index)
        self._read = index.copy()
        self._mask = np.ones(len(index), bool)

    def fill(self, row: int) -> None:
        raise NotImplementedError

    def batch(self) -> Batch:
        # NumPy arrays, until the caller puts them on a device.
        arrays: dict[str, Any] = {
            "image": self._image,
            "label": batch_labels(self._examples.labels[self._read]),
            "mask": self._mask,
            "index": self._index,
            "epoch": self._epoch,
            "aspect": self._examples.aspects[self._read],
        }
        return Batch(**arrays)


class _Training(_Rows):
    def fill(self, row: int) -> None:
        box_of = None if self._boxes is None else self._boxes[row]
        self._read[row] = self._examples.read_substituting(int(self._index[row]), self._image[row], box_of)


class _Copies(_Rows):
    """Rows that only have to be copied, many in one call; what is filled at a time is one of their groups."""

    def __init__(
        self,
        examples: Examples,
        image: UInt8[np.ndarray, "b h w c"],
        index: Int32[np.ndarray, " b"],
        epoch: Int32[np.ndarray, " b"],
    ) -> None:
        super().__init__(examples, image, index, epoch)
        self._group = max(_COPIED_AT_ONCE // math.prod(examples.shape), 1)
        self.rows = -(-len(index) // self._group)

    def fill(self, row: int) -> None:
        group = slice(row * self._group, (row + 1) * self._group)
        self._examples.copy(self._index[group], self._image[group])


class _Evaluation(_Rows):
    def fill(self, row: int) -> None:
        index = int(self._index[row])
        if index < len(self._examples):
            self._mask[row] = self._examples.read_into(index, self._image[row])
        else:
            self._read[row], self._mask[row], self._image[row] = 0, False, 0
