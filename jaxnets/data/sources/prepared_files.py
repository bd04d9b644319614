"""The files of a prepared data set: their names, what stands in them, and how each is checked (docs/prepared.md)."""

import itertools
import json
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int32, Int64, UInt8, UInt32, UInt64

FORMAT = 1
INDEX = "prepared.json"
TABLE = ".npz"  # suffix of what is known of a shard's images

# How a split is stored. Its images squeezed to canvases; encoded again, the shorter side limited; or the source's own
# files, byte for byte.
Kind = Literal["canvas", "jpeg", "file"]
SUFFIXES: dict[Kind, str] = {"canvas": ".npy", "jpeg": ".jpegs", "file": ".files"}

_MAGIC = b"\x93NUMPY\x01\x00"  # .npy, version 1.0
_NPY_HEADER = 128  # bytes: 64 are what NumPy aligns to, and twice that holds any shape
_SPLIT = re.compile(r"\w[\w-]*")


class Damaged(Exception):
    """A file that is not as it was written. The message says which and what is wrong with it."""


def shard_names(split: str, count: int) -> list[str]:
    """Returns the names of a split's shards, without their suffixes."""
    return [f"{split}-{number:05}-of-{count:05}" for number in range(count)]


def bounds(examples: int, shards: int) -> list[tuple[int, int]]:
    """Returns first and last (exclusive) example of each shard; they differ in size by one at most."""
    ends = [examples * number // shards for number in range(shards + 1)]
    return list(itertools.pairwise(ends))


def limited(height: int, width: int, side: int) -> tuple[int, int]:
    """Returns height and width of an image whose shorter side is limited; it is never enlarged."""
    shorter = min(height, width)
    if shorter <= side:
        return height, width
    return max(round(height * side / shorter), 1), max(round(width * side / shorter), 1)


def npy_header(shape: tuple[int, ...]) -> bytes:
    """Returns the first 128 bytes of a .npy file of uint8 in C order."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    length = _NPY_HEADER - len(_MAGIC) - 2
    return _MAGIC + length.to_bytes(2, "little") + text.ljust(length - 1).encode() + b"\n"


@dataclass(frozen=True)
class Texts:
    """Texts in two arrays, since a million strings of Python's take a hundred megabytes."""

    content: UInt8[np.ndarray, " bytes"]  # UTF-8, one after the other
    ends: Int64[np.ndarray, " n"]  # of each in that

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Texts":
        encoded = [text.encode("utf-8", "backslashreplace") for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    @classmethod
    def together(cls, several: Iterable["Texts"]) -> "Texts":
        all_of = list(several)
        before = np.cumsum([0, *(len(texts.content) for texts in all_of)])
        ends = [texts.ends + start for texts, start in zip(all_of, before, strict=False)]
        return cls(np.concatenate([texts.content for texts in all_of]), np.concatenate(ends))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: int) -> str:
        start = int(self.ends[number - 1]) if number else 0
        return self.content[start : int(self.ends[number])].tobytes().decode("utf-8", "backslashreplace")

    def __iter__(self) -> Iterator[str]:
        return (self[number] for number in range(len(self)))


@dataclass(frozen=True, kw_only=True)
class Table:
    """What is known of each example of a shard, or of several shards in a row, beside its pixels."""

    numbers: Int64[np.ndarray, " n"]  # of the example in its split of the source
    labels: Int32[np.ndarray, " n"]
    identities: UInt64[np.ndarray, " n"]
    sizes: Int32[np.ndarray, "n 2"]  # height and width of the original
    crc32: UInt32[np.ndarray, " n"]  # of what is stored of it
    nbytes: Int64[np.ndarray, " n"]  # likewise, how many
    names: Texts
    groups: UInt64[np.ndarray, " n"] | None
    targets: UInt8[np.ndarray, "n classes"] | None
    skipped: Texts  # why images between these could not be read, a message each
    source_crc32: int = 0  # of the source's files when they were read (`Split.content_crc32`)

    def __len__(self) -> int:
        return len(self.labels)

    def to_bytes(self) -> bytes:
        """Returns it as an .npz file, the same bytes for the same content."""
        arrays: dict[str, np.ndarray] = {
            "numbers": self.numbers,
            "labels": self.labels,
            "identities": self.identities,
            "sizes": self.sizes,
            "crc32": self.crc32,
            "nbytes": self.nbytes,
            "source_crc32": np.array(self.source_crc32, np.uint32),
            "names": self.names.content,
            "names_end": self.names.ends,
            "skipped": self.skipped.content,
            "skipped_end": self.skipped.ends,
        }
        for name, array in (("groups", self.groups), ("targets", self.targets)):
            if array is not None:
                arrays[name] = array
        file = BytesIO()
        np.savez(file, **arrays)  # type: ignore[arg-type]
        return file.getvalue()

    @classmethod
    def of_file(cls, path: Path) -> tuple["Table", int]:
        """Returns the table of an .npz file, and the file's CRC-32.

        Raises:
            OSError: if it cannot be read.
            Damaged: if it is no such table.
        """
        content = path.read_bytes()
        try:
            with np.load(BytesIO(content), allow_pickle=False) as found:
                arrays = dict(found)
            columns: Any = {name: _typed(arrays, name, kind) for name, kind in _COLUMNS.items()}
            table = cls(
                **columns,
                names=_typed_texts(arrays, "names"),
                groups=_typed(arrays, "groups", "<u8") if "groups" in arrays else None,
                targets=_typed(arrays, "targets", "|u1") if "targets" in arrays else None,
                skipped=_typed_texts(arrays, "skipped"),
                source_crc32=int(arrays["source_crc32"]),
            )
            others = (table.names, table.groups, table.targets)
            if any(column is not None and len(column) != len(table) for column in (*columns.values(), *others)):
                raise ValueError("its columns differ in length")
        except (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise Damaged(f"{path.name} cannot be read as a table of examples ({error})") from error
        return table, zlib.crc32(content)

    @classmethod
    def together(cls, tables: Iterable["Table"]) -> "Table":
        """Returns the tables of shards that follow one another, which are one or more, as one."""
        all_of = list(tables)
        first = all_of[0]
        columns: Any = {name: np.concatenate([getattr(table, name) for table in all_of]) for name in _COLUMNS}
        return cls(
            **columns,
            names=Texts.together(table.names for table in all_of),
            groups=None if first.groups is None else np.concatenate([table.groups for table in all_of]),
            targets=None if first.targets is None else np.concatenate([table.targets for table in all_of]),
            skipped=Texts.together(table.skipped for table in all_of),
        )


_COLUMNS = {
    "numbers": "<i8",
    "labels": "<i4",
    "identities": "<u8",
    "sizes": "<i4",
    "crc32": "<u4",
    "nbytes": "<i8",
}


def _typed(arrays: Mapping[str, np.ndarray], name: str, kind: str) -> np.ndarray:
    if arrays[name].dtype != np.dtype(kind):
        raise ValueError(f"{name} is {arrays[name].dtype}")
    return arrays[name]


def _typed_texts(arrays: Mapping[str, np.ndarray], name: str) -> Texts:
    content, ends = _typed(arrays, name, "|u1"), _typed(arrays, f"{name}_end", "<i8")
    if len(ends) and (ends[-1] != len(content) or ends[0] < 0 or (np.diff(ends) < 0).any()):
        raise ValueError(f"{name} do not end where they should")
    return Texts(content, ends)


@dataclass(frozen=True, kw_only=True)
class Index:
    """prepared.json: where the data came from, and which files hold it."""

    source: str
    jaxnets: str  # the version that wrote it
    date: str  # on which that began, ISO 8601
    decoder: dict[str, Any]  # what made pixels of the files: versions, and the config's keys that have a say
    height: int  # pixels, of each canvas; of JPEG files, both are the most that the shorter side has
    width: int
    channels: int
    jpeg_quality: int | None  # None: nothing is encoded again
    kinds: dict[str, Kind]  # of each split
    image_size: tuple[int, int] | None  # that all the source's images have
    class_names: tuple[str, ...]
    examples: dict[str, int]  # of each split of the source
    source_crc32: dict[str, int]  # of each split: labels, identities, groups and targets
    shards: dict[str, int]  # of each split
    tables: dict[str, int] | None  # CRC-32 of each shard's table; None: it is not finished
    skipped: int = 0  # images that could not be read

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of each canvas."""
        return self.height, self.width, self.channels

    def header(self, split: str, examples: int) -> bytes:
        """Returns what a shard begins with."""
        return npy_header((examples, *self.shape)) if self.kinds[split] == "canvas" else b""

    def file(self, split: str, name: str) -> str:
        """Returns the name of a shard's file."""
        return name + SUFFIXES[self.kinds[split]]

    def names(self, split: str) -> list[str]:
        return shard_names(split, self.shards[split])

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **vars(self)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def of_json(cls, text: str) -> "Index":
        """Raises Damaged if it is none, or of another version."""
        try:
            saved = json.loads(text)
            version = saved.pop("format")
            if version != FORMAT:
                raise Damaged(
                    f"{INDEX} is of format {version!r}, and this version of jaxnets reads format {FORMAT}: prepare the "
                    f"data again, or use the version that wrote it ({saved.get('jaxnets', 'unknown')})"
                )
            saved["class_names"] = tuple(map(str, saved["class_names"]))
            saved["image_size"] = saved["image_size"] and tuple(map(int, saved["image_size"]))
            index = cls(**saved)
            numbers = [index.height, index.width, *index.examples.values(), *index.shards.values()]
            valid = all(isinstance(number, int) and number >= 0 for number in numbers) and index.channels in (1, 3)
            splits = index.shards.keys()
            valid = valid and splits == index.kinds.keys() and not set(index.kinds.values()) - SUFFIXES.keys()
            if not valid or any(not _SPLIT.fullmatch(split) for split in splits):
                raise ValueError("what it says cannot be")
        except Damaged:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(f"{INDEX} cannot be read ({error})") from error
        return index


def check_shard(path: Path, table: Table, header: bytes) -> None:
    """Checks a shard's size and its beginning.

    Raises:
        Damaged: if it is missing, cut short, longer than it was, or no such file.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            found = file.read(len(header))
    except FileNotFoundError:
        raise Damaged(f"{path.name} is missing") from None
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read ({error.strerror})") from error
    expected = len(header) + int(table.nbytes.sum())
    if size != expected:
        raise Damaged(f"{path.name} has {size:,} bytes, and had {expected:,} when it was written")
    if found != header:
        raise Damaged(f"{path.name} does not begin as it did when it was written")


def check_examples(path: Path, table: Table, header: int, rows: Iterable[int]) -> None:
    """Compares what a shard holds of some of its examples, after its header, with their checksums; raises Damaged."""
    starts = header + np.r_[0, np.cumsum(table.nbytes)]
    try:
        with open(path, "rb") as file:
            for row in rows:
                file.seek(int(starts[row]))
                if zlib.crc32(file.read(int(table.nbytes[row]))) != table.crc32[row]:
                    raise Damaged(
                        f"{path.name} does not hold what was written: example {row} ({table.names[row]}) has another "
                        f"checksum"
                    )
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read ({error.strerror})") from error
