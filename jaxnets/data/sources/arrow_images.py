"""Images in the tables of Arrow that Hugging Face `datasets` maps into memory."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64, UInt64

from jaxnets.data.sources import kept
from jaxnets.data.sources.base import CorruptImage
from jaxnets.data.sources.names import hashes, printable

if TYPE_CHECKING:
    import pyarrow

_ARRAYS = ("size", "content")


class Cells:
    """A column of images, bytes or {bytes, path}, read cell by cell; from any thread, as Arrow's data never changes."""

    def __init__(self, column: "pyarrow.ChunkedArray", allowed: Sequence[str]) -> None:
        """Takes the column, and the folders out of which no path in it may lead."""
        import pyarrow

        self._bytes: list[Any] = []
        self._paths: list[Any] = []
        for chunk in column.chunks:
            if pyarrow.types.is_struct(chunk.type):
                names = [field.name for field in chunk.type]
                fields = chunk.flatten()
                self._bytes.append(fields[names.index("bytes")])
                self._paths.append(fields[names.index("path")] if "path" in names else None)
            else:
                self._bytes.append(chunk)
                self._paths.append(None)
        self._ends = np.cumsum([len(chunk) for chunk in self._bytes], dtype=np.int64)
        self._allowed = [os.path.abspath(folder) + os.sep for folder in allowed]

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def path(self, row: int) -> str:
        """Returns the path that stands beside an image, "" without one."""
        chunk, place = self._find(row)
        paths = self._paths[chunk]
        return "" if paths is None else str(paths[place].as_py() or "")

    def read(self, row: int) -> bytes | None:
        """Returns the bytes of an image, None where there is none; raises OSError where its file cannot be read."""
        chunk, place = self._find(row)
        stored = self._bytes[chunk][place].as_buffer()
        if stored is not None:
            content: bytes = stored.to_pybytes()
            return content
        path = self.path(row)
        if not path:
            return None
        if not any(os.path.abspath(path).startswith(folder) for folder in self._allowed):
            raise PermissionError(None, f"{printable(path)} lies outside the folders of the data set")
        with open(path, "rb") as file:
            return file.read()

    def _find(self, row: int) -> tuple[int, int]:
        chunk = int(np.searchsorted(self._ends, row, side="right"))
        return chunk, int(row - (self._ends[chunk - 1] if chunk else 0))


@dataclass(frozen=True, kw_only=True)
class ArrowStored:
    """Some of the images in such columns."""

    columns: Sequence[Cells]
    column: Int64[np.ndarray, " n"]  # number of the column of each
    row: Int64[np.ndarray, " n"]  # and its row there
    size: Int64[np.ndarray, " n"]
    names: Sequence[str]
    content: UInt64[np.ndarray, " n"]

    def read(self, index: int) -> bytes:
        try:
            content = self.columns[self.column[index]].read(int(self.row[index]))
        except OSError as error:
            raise CorruptImage(f"{self.names[index]} cannot be read: {error.strerror or error}") from error
        return content or b""

    def take(self, rows: Int64[np.ndarray, " m"]) -> "ArrowStored":
        return replace(
            self,
            column=self.column[rows],
            row=self.row[rows],
            size=self.size[rows],
            names=[self.names[row] for row in rows.tolist()],
            content=self.content[rows],
        )


def store(columns: Sequence[Cells], titles: Sequence[str], versions: Sequence[str]) -> ArrowStored:
    """Returns all images of some columns; their bytes are read once, to know them again, unless that has been done.

    Args:
        columns: of the splits, say.
        titles: what images without a path are called, before their number.
        versions: of the columns, what changes when they do.
    """
    sizes, contents, names = [], [], []
    for cells, title, version in zip(columns, titles, versions, strict=True):
        at = kept.kept_at("hf", version, len(cells))
        arrays = kept.load(at, _ARRAYS)
        if arrays is None or len(arrays["size"]) != len(cells):
            arrays = _read(cells)
            kept.save(at, arrays)
        sizes.append(arrays["size"])
        contents.append(arrays["content"])
        for row in range(len(cells)):
            path = cells.path(row)
            names.append(printable(os.path.basename(path)) if path else f"{title}[{row}]")
    counts = [len(cells) for cells in columns]
    return ArrowStored(
        columns=columns,
        column=np.repeat(np.arange(len(columns)), counts),
        row=np.concatenate([np.arange(count) for count in counts]),
        size=np.concatenate(sizes),
        names=names,
        content=np.concatenate(contents),
    )


def _read(cells: Cells) -> dict[str, np.ndarray]:
    size = np.full(len(cells), -1, np.int64)
    content = np.zeros(len(cells), np.uint64)
    for row in range(len(cells)):
        try:
            stored = cells.read(row)
        except OSError:  # it is named when it is trained on
            stored = b""
        if stored is not None:
            size[row] = len(stored)
            content[row] = hashes([stored or cells.path(row).encode()])[0]
    return {"size": size, "content": content}
