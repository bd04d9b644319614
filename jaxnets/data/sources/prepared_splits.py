"""Splits of prepared data: canvases that are copied as they lie, or image files one behind the other."""

import io
import math
import mmap
import os
import weakref
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int32, Int64, UInt8, UInt64

from jaxnets.data.decode import decode_reduced
from jaxnets.data.sources.base import CorruptImage, Least, Reduced
from jaxnets.data.sources.prepared_files import Table, npy_header
from jaxnets.errors import UserError

_RESIDENT = 512 * 2**20  # bytes of files that stay in the process's memory, where they have more


class PreparedSplit:
    """The examples of one split, whose files are mapped into memory; reading is thread-safe."""

    def __init__(self, paths: Sequence[Path], tables: Sequence[Table], header: int) -> None:
        self._paths = paths
        self._table = Table.together(tables)
        counts = [len(table) for table in tables]
        self._first = np.cumsum([0, *counts])  # example of each shard
        self._shards = np.repeat(np.arange(len(tables)), counts)
        self._files = [os.open(path, os.O_RDONLY) for path in paths]
        weakref.finalize(self, _close, self._files)
        self._lengths = [header + int(table.nbytes.sum()) for table in tables]
        self._maps = [_map(file, length) for file, length in zip(self._files, self._lengths, strict=True)]
        self._contents = [
            np.frombuffer(mapped, np.uint8)[header:] if mapped else np.zeros(0, np.uint8) for mapped in self._maps
        ]
        self._forgets = sum(self._lengths) > _RESIDENT
        self._touched = 0  # bytes since the last time, about: threads may miss some

    def __len__(self) -> int:
        return len(self._table)

    @property
    def labels(self) -> Int32[np.ndarray, " n"]:
        return self._table.labels

    @property
    def identities(self) -> UInt64[np.ndarray, " n"]:
        """Those of the source, so that what is held out of one is held out of the other."""
        return self._table.identities

    @property
    def groups(self) -> UInt64[np.ndarray, " n"] | None:
        return self._table.groups

    @property
    def targets(self) -> UInt8[np.ndarray, "n classes"] | None:
        return self._table.targets

    @property
    def sizes(self) -> Int32[np.ndarray, "n 2"]:
        """Height and width of the originals."""
        return self._table.sizes

    def name(self, index: int) -> str:
        return self._table.names[index]

    def image(self, index: int) -> UInt8[np.ndarray, "h w c"]:
        """Returns one image as it is stored; raises CorruptImage with its name."""
        return self.reduced(index, None).image

    def reduced(self, index: int, least: Least | None) -> Reduced:
        raise NotImplementedError

    def content_crc32(self, chosen: Int64[np.ndarray, " m"]) -> int:
        """Returns a checksum of all that is stored of these examples."""
        return zlib.crc32(self._table.crc32[chosen].tobytes())

    def _touch(self, count: int) -> None:
        """Counts bytes that were read; now and then the process lets go of them, which the system keeps in its cache.

        Else a run's resident memory would grow to the size of the data, or of the machine's memory.
        """
        self._touched += count
        if self._forgets and self._touched > _RESIDENT:
            self._touched = 0
            for mapped in self._maps:
                if mapped:
                    mapped.madvise(mmap.MADV_DONTNEED)

    def _check_lengths(self, shards: Iterable[int]) -> None:
        """Raises UserError for a file that was cut since it was opened: to read on would end the process at once."""
        for shard in shards:
            if os.fstat(self._files[shard]).st_size < self._lengths[shard]:
                raise UserError(
                    f"{self._paths[shard]} was cut short while it was read: run the command that prepared it again, "
                    f"which writes this shard anew"
                )


class CanvasSplit(PreparedSplit):
    """Images that are stored squeezed to one size, uncompressed."""

    def __init__(self, paths: Sequence[Path], tables: Sequence[Table], shape: tuple[int, int, int]) -> None:
        super().__init__(paths, tables, len(npy_header((0, *shape))))
        self.shape = shape
        self._canvases = [content.reshape(-1, *shape) for content in self._contents]

    def reduced(self, index: int, least: Least | None) -> Reduced:
        """Returns one canvas, and the size of the original."""
        canvas = np.empty((1, *self.shape), np.uint8)
        self.read_into(np.array([index]), canvas)
        height, width = self._table.sizes[index].tolist()
        return Reduced(canvas[0], (height, width))

    def read_into(self, indices: Int[np.ndarray, " b"], out: UInt8[np.ndarray, "b h w c"]) -> None:
        """Copies the canvases of these examples into the rows of `out`."""
        shards = self._shards[indices]
        touched = set(shards.tolist())
        self._check_lengths(touched)
        self._touch(len(indices) * math.prod(self.shape))
        rows = indices - self._first[shards]
        if len(touched) == 1:
            # Half as quick again as one by one; "clip", since other modes fill a buffer of their own first.
            np.take(self._canvases[touched.pop()], rows, axis=0, out=out, mode="clip")
            return
        for to, (shard, row) in enumerate(zip(shards.tolist(), rows.tolist(), strict=True)):
            out[to] = self._canvases[shard][row]

    def view(self, indices: Int[np.ndarray, " b"]) -> UInt8[np.ndarray, "b h w c"] | None:
        """Returns the canvases as they lie in their file, where they lie side by side in one; copies nothing."""
        if not len(indices) or (np.diff(indices) != 1).any():
            return None
        shard = int(self._shards[indices[0]])
        if shard != self._shards[indices[-1]]:
            return None
        first = int(indices[0] - self._first[shard])
        return self._canvases[shard][first : first + len(indices)]


class FileSplit(PreparedSplit):
    """Images that are stored as files of images, one after the other."""

    def __init__(self, paths: Sequence[Path], tables: Sequence[Table], white_level: int) -> None:
        super().__init__(paths, tables, 0)
        self._white_level = white_level
        self._ends = [np.cumsum(table.nbytes) for table in tables]

    def reduced(self, index: int, least: Least | None) -> Reduced:
        """Decodes one image, perhaps smaller; raises CorruptImage with its name."""
        shard = int(self._shards[index])
        self._check_lengths([shard])
        end = int(self._ends[shard][index - self._first[shard]])
        stored = self._contents[shard][end - int(self._table.nbytes[index]) : end].tobytes()
        self._touch(len(stored))
        if zlib.crc32(stored) != self._table.crc32[index]:
            raise CorruptImage(f"{self.name(index)} in {self._paths[shard]} is not what was written")
        return decode_reduced(io.BytesIO(stored), self.name(index), self._white_level, least)


def _map(file: int, length: int) -> mmap.mmap | None:
    """Returns a file as it lies in memory; None for an empty one, which cannot be mapped."""
    return mmap.mmap(file, length, access=mmap.ACCESS_READ) if length else None


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)
