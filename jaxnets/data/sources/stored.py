"""Encoded images that lie one behind the other in a few files, each read by its position."""

import io
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat
from typing import Protocol

import numpy as np
from jaxtyping import Int32, Int64, UInt8, UInt64

from jaxnets.cores import cores
from jaxnets.data.decode import decode_reduced, read_header
from jaxnets.data.sources.base import CorruptImage, Least, Reduced, Source, Split
from jaxnets.data.sources.bucket import BUCKET, read_range
from jaxnets.data.sources.names import hashes, printable

_HEADERS = 2_000  # images, evenly spread, whose headers are read
_CHUNK = 128  # headers between two looks at whether the answer is known already
_SIZED = 50_000  # images, evenly spread, whose sizes tell whether they were changed,
_READ = 64  # and that are read for it


class Container(Protocol):
    """Encoded images by their numbers."""

    @property
    def names(self) -> Sequence[str]:
        """What reports call them; the same wherever they lie."""
        ...

    @property
    def content(self) -> UInt64[np.ndarray, " n"] | None:
        """Hashes of their bytes, where they are known."""
        ...

    @property
    def size(self) -> Int64[np.ndarray, " n"]:
        """How many bytes each has; −1 where there is none."""
        ...

    def read(self, index: int) -> bytes:
        """Returns the bytes of one image; raises CorruptImage with its name where they cannot be read."""
        ...

    def take(self, rows: Int64[np.ndarray, " m"]) -> "Container": ...


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Images that lie in files."""

    files: Sequence[str]
    file: Int32[np.ndarray, " n"]  # number of the file of each
    offset: Int64[np.ndarray, " n"]  # of its first byte
    size: Int64[np.ndarray, " n"]
    names: Sequence[str]
    content: UInt64[np.ndarray, " n"] | None

    def read(self, index: int) -> bytes:
        file, offset, size = self.files[self.file[index]], int(self.offset[index]), int(self.size[index])
        try:
            # Opened each time: a thousand shards would need a thousand descriptors, and to decode takes far longer.
            content = read_range(file, offset, size) if file.startswith(BUCKET) else _read(file, offset, size)
        except OSError as error:
            reason = error.strerror or str(error)
            raise CorruptImage(f"{self.names[index]} cannot be read from {printable(file)}: {reason}") from error
        if len(content) < size:
            raise CorruptImage(f"{self.names[index]} cannot be read: {printable(file)} ends within it")
        return content

    def take(self, rows: Int64[np.ndarray, " m"]) -> "Stored":
        content = None if self.content is None else self.content[rows]
        names = [self.names[row] for row in rows.tolist()]
        return replace(
            self, file=self.file[rows], offset=self.offset[rows], size=self.size[rows], names=names, content=content
        )


@dataclass(frozen=True, kw_only=True)
class StoredSplit:
    """Some of the images that are stored so, and their classes; random access from any thread."""

    stored: Container
    labels: Int32[np.ndarray, " n"]
    white_level: int
    groups: UInt64[np.ndarray, " n"] | None = None
    targets: UInt8[np.ndarray, "n classes"] | None = None

    def __len__(self) -> int:
        return len(self.stored.names)

    @cached_property
    def identities(self) -> UInt64[np.ndarray, " n"]:
        if self.stored.content is not None:
            return self.stored.content
        return hashes(name.encode() for name in self.stored.names)

    def encoded(self, index: int) -> bytes:
        """Returns the bytes of one image; raises CorruptImage with its name."""
        return self.stored.read(index)

    def image(self, index: int) -> UInt8[np.ndarray, "h w c"]:
        """Decodes one image; raises CorruptImage with its name."""
        return self.reduced(index, None).image

    def reduced(self, index: int, least: Least | None) -> Reduced:
        return decode_reduced(io.BytesIO(self.stored.read(index)), self.name(index), self.white_level, least)

    def name(self, index: int) -> str:
        return self.stored.names[index]

    def content_crc32(self, chosen: Int64[np.ndarray, " m"]) -> int:
        """Returns a checksum of the images' sizes and of what some of them hold; 0 where identities tell that."""
        if self.stored.content is not None:
            return 0
        sized = chosen[_spread(len(chosen), _SIZED)]
        checksum = zlib.crc32(self.stored.size[sized].astype("<i8").tobytes())
        for index in chosen[_spread(len(chosen), _READ)].tolist():
            try:
                checksum = zlib.crc32(self.stored.read(index), checksum)
            except CorruptImage:  # it is named when it is trained on
                continue
        return checksum


class StoredImages:
    """Images of a table's rows that are stored so."""

    def __init__(self, stored: Container, white_level: int) -> None:
        self._stored, self._white_level = stored, white_level

    @property
    def files(self) -> Int64[np.ndarray, " n"] | None:
        missing = self._stored.size < 0
        return np.where(missing, -1, np.arange(len(missing))) if missing.any() else None

    def name(self, row: int) -> str:
        return self._stored.names[row]

    def split(
        self,
        rows: Int64[np.ndarray, " m"],
        labels: Int32[np.ndarray, " m"],
        groups: UInt64[np.ndarray, " m"] | None,
        targets: UInt8[np.ndarray, "m classes"] | None,
    ) -> StoredSplit:
        return StoredSplit(
            stored=self._stored.take(rows),
            labels=labels,
            white_level=self._white_level,
            groups=groups,
            targets=targets,
        )

    def paths(self, rows: Int64[np.ndarray, " m"]) -> Sequence[str]:
        return ()


def surveyed(source: Source) -> Source:
    """Returns the source with the size and channels that its images have in common, by 2,000 headers of each split."""
    sizes: set[tuple[int, int]] = set()
    colour = False
    with ThreadPoolExecutor(min(32, 4 * cores())) as pool:
        for split in source.splits.values():
            order = _spread(len(split), _HEADERS)
            stride = -(-len(order) // _CHUNK)
            for start in range(stride):
                if colour and len(sizes) > 1:
                    break
                chosen = order[start::stride].tolist()
                for height, width, channels in pool.map(_header, repeat(split), chosen):
                    if channels:
                        sizes.add((height, width))
                        colour = colour or channels != 1
    image_size = next(iter(sizes)) if len(sizes) == 1 else None
    return replace(source, image_size=image_size, channels=1 if sizes and not colour else 3)


def _header(split: Split, index: int) -> tuple[int, int, int]:
    """Returns height, width and channels of an image; zeros where it cannot be read."""
    assert isinstance(split, StoredSplit)
    try:
        header = read_header(io.BytesIO(split.stored.read(index)))
    except CorruptImage:
        return 0, 0, 0
    return (0, 0, 0) if header is None else (header.height, header.width, header.channels)


def _read(file: str, offset: int, size: int) -> bytes:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


def _spread(length: int, most: int) -> Int64[np.ndarray, " m"]:
    """Returns up to `most` positions, evenly spread."""
    return np.linspace(0, length - 1, min(length, most)).astype(np.int64)
