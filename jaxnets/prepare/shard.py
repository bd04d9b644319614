"""One shard: images decoded in several threads, written in their order."""

import io
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from jaxnets.data.canvas import Canvas
from jaxnets.data.sources import CorruptImage, Split
from jaxnets.data.sources.base import Encoded, read_reduced
from jaxnets.data.sources.prepared_files import (
    TABLE,
    Damaged,
    Index,
    Table,
    Texts,
    check_examples,
    check_shard,
    limited,
)
from jaxnets.prepare.files import new_file
from jaxnets.preprocess import with_channels

_CHUNK = 8  # images that a thread decodes between two looks at what is next
_T = TypeVar("_T")
_R = TypeVar("_R")

Tick = Callable[[int, Sequence[str]], None]  # so many images are done, and why some of them cannot be read


class _Row(NamedTuple):
    number: int  # of the example in its split
    size: tuple[int, int] = (0, 0)  # height and width of the original
    crc32: int = 0  # of what is stored
    nbytes: int = 0  # likewise, how many
    unreadable: str = ""  # why, of an image that is left out


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Some examples of a split, in a row, and the two files that hold them."""

    index: Index
    split_name: str
    split: Split
    first: int
    last: int  # exclusive
    folder: Path
    name: str

    def __len__(self) -> int:
        return self.last - self.first

    @property
    def path(self) -> Path:
        return self.folder / self.index.file(self.split_name, self.name)

    @property
    def table_path(self) -> Path:
        return self.folder / (self.name + TABLE)

    def table(self) -> tuple[Table, int]:
        """Returns the table of a finished shard, and the table's CRC-32; raises Damaged if it is not finished."""
        try:
            table, crc32 = Table.of_file(self.table_path)
        except OSError as error:
            raise Damaged(f"{self.table_path.name} cannot be read ({error.strerror})") from error
        inside = (table.numbers >= self.first) & (table.numbers < self.last)
        if len(table) + len(table.skipped) != len(self) or not inside.all():
            raise Damaged(f"{self.table_path.name} is of other examples")
        check_shard(self.path, table, self._header(len(table)))
        return table, crc32

    def check(self) -> Table:
        """Returns the table, where the shard holds what was written, and its source's files are as they were.

        Raises:
            Damaged: otherwise.
        """
        table, _ = self.table()
        same_labels = (table.labels == self.split.labels[table.numbers]).all()
        same_examples = (table.identities == self.split.identities[table.numbers]).all()
        if not same_labels or not same_examples or table.source_crc32 != self._source_crc32():
            raise Damaged(f"{self.table_path.name} is of files that have changed since")
        check_examples(self.path, table, len(self._header(0)), range(len(table)))
        return table

    def write(self, pool: ThreadPoolExecutor, threads: int, tick: Tick) -> None:
        """Decodes the images and writes the shard, and then its table, which says that it is finished.

        Raises:
            OSError: if it cannot be written; what was there of it is then gone.
        """
        self.table_path.unlink(missing_ok=True)
        source_crc32 = self._source_crc32()  # before they are read: a file that changes meanwhile is found out
        numbers = range(self.first, self.last)
        chunks = (numbers[start : start + _CHUNK] for start in range(0, len(numbers), _CHUNK))
        rows: list[_Row] = []
        with new_file(self.path) as file:
            file.write(self._header(0))
            for encoded in _ahead(pool, self._encode, chunks, 2 * threads):
                for row, content in encoded:
                    file.write(content)
                    rows.append(row)
                tick(len(encoded), [row.unreadable for row, _ in encoded if row.unreadable])
            file.seek(0)
            file.write(self._header(sum(not row.unreadable for row in rows)))
        with new_file(self.table_path) as file:
            file.write(self._table(rows, source_crc32).to_bytes())

    def _header(self, examples: int) -> bytes:
        return self.index.header(self.split_name, examples)

    def _source_crc32(self) -> int:
        return self.split.content_crc32(np.arange(self.first, self.last))

    def _encode(self, numbers: Iterable[int]) -> list[tuple[_Row, bytes | memoryview]]:
        encoded: list[tuple[_Row, bytes | memoryview]] = []
        for number in numbers:
            try:
                original, content = self._stored(number)
            except CorruptImage as error:
                encoded.append((_Row(number, unreadable=str(error)), b""))
                continue
            encoded.append((_Row(number, original, zlib.crc32(content), len(content)), content))
        return encoded

    def _stored(self, number: int) -> tuple[tuple[int, int], bytes | memoryview]:
        """Returns an image's height and width, and what is stored of it; raises CorruptImage."""
        index, kind = self.index, self.index.kinds[self.split_name]
        if kind == "canvas":
            canvas = Canvas(height=index.height, width=index.width, channels=index.channels)
            read = read_reduced(self.split, number, (index.height, index.width))
            out = np.empty(index.shape, np.uint8)
            canvas.squeeze_reduced(read, out)
            return read.original, out.data.cast("B")
        read = read_reduced(self.split, number, None)
        if kind == "file":
            assert isinstance(self.split, Encoded)
            return read.original, self.split.encoded(number)
        pixels = with_channels(read.image, index.channels)
        height, width = limited(pixels.shape[0], pixels.shape[1], index.height)
        image = Image.fromarray(pixels[..., 0] if index.channels == 1 else pixels)
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=index.jpeg_quality)
        return read.original, file.getvalue()

    def _table(self, rows: list[_Row], source_crc32: int) -> Table:
        kept = [row for row in rows if not row.unreadable]
        numbers = np.array([row.number for row in kept], np.int64)
        groups, targets = self.split.groups, getattr(self.split, "targets", None)
        return Table(
            numbers=numbers,
            labels=self.split.labels[numbers].astype(np.int32),
            identities=self.split.identities[numbers].astype(np.uint64),
            sizes=np.array([row.size for row in kept], np.int32).reshape(-1, 2),
            crc32=np.array([row.crc32 for row in kept], np.uint32),
            nbytes=np.array([row.nbytes for row in kept], np.int64),
            names=Texts.of(self.split.name(row.number) for row in kept),
            groups=None if groups is None else groups[numbers].astype(np.uint64),
            targets=None if targets is None else targets[numbers].astype(np.uint8),
            skipped=Texts.of(row.unreadable for row in rows if row.unreadable),
            source_crc32=source_crc32,
        )


def _ahead(pool: ThreadPoolExecutor, function: Callable[[_T], _R], arguments: Iterable[_T], depth: int) -> Iterator[_R]:
    """Yields the results in order, at most `depth` of them under way."""
    waiting = deque[Future[_R]]()
    try:
        for argument in arguments:
            waiting.append(pool.submit(function, argument))
            if len(waiting) >= depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
