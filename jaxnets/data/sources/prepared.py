"""What `python -m jaxnets.prepare` wrote: canvases that are copied as they lie, or JPEG files of limited size."""

import io
import math
import mmap
import os
import weakref
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Int, Int32, Int64, UInt8, UInt64

from jaxnets.config import DataConfig
from jaxnets.data.decode import decode_reduced
from jaxnets.data.sources.base import CorruptImage, Reduced, Source, Split, Stored
from jaxnets.data.sources.bucket import BUCKET
from jaxnets.data.sources.names import printable
from jaxnets.data.sources.prepared_bucket import copied
from jaxnets.data.sources.prepared_files import (
    INDEX,
    TABLE,
    Damaged,
    Index,
    Table,
    check_examples,
    check_shard,
    limited,
    npy_header,
)
from jaxnets.errors import UserError

_RESIDENT = 512 * 2**20  # bytes of files that stay in the process's memory, where they have more
_SAMPLED = 64  # examples of a split, evenly spread, whose checksums are compared when it is opened

# Of the config's data group, what has a say in the pixels that a source gives.
PIXEL_KEYS = ("white_level",)

_T = TypeVar("_T")


def open_prepared(location: str, spec: DataConfig, known: Sequence[str] | None) -> Source:
    """Opens a prepared data set, whose splits, examples, names and classes are those of the source it was made of.

    Args:
        location: the folder with prepared.json, which may be gs://BUCKET/FOLDER; that is copied to the user's cache.
        spec: of which `white_level` and the like must be what they were.
        known: classes to evaluate on; a data set without a test split is then the one split "all".

    Raises:
        UserError: if it is missing, not finished, cut short, altered, or of another version.
    """
    name = f"prepared:{printable(location)}"
    if location.startswith(BUCKET):
        root = copied(location, name)
        messages = f"{name} (copied to {root}, which you may delete)"
    else:
        root, messages = Path(location).expanduser(), name
    index = read_index(root, messages)
    differing = [key for key in pixel_settings(spec) if index.decoder.get(key) != pixel_settings(spec)[key]]
    if differing:
        key = differing[0]
        raise UserError(
            f"{name} was prepared with config.data.{key}={index.decoder.get(key)}, and it is "
            f"{pixel_settings(spec)[key]} now: set it to what it was, or prepare the data again with the other"
        )
    tables = {split: _read_tables(root, index, split, messages) for split in index.shards}
    for split, found in tables.items():
        _or_refuse(messages, index, partial(_check_sample, root, index, split, found))
    splits: dict[str, Split] = {
        split: _open_split(root, index, split, found, spec.white_level) for split, found in tables.items()
    }
    if known is not None and set(splits) == {"train"}:
        splits = {"all": splits["train"]}
    image_size = index.image_size
    if index.jpeg_quality is None:
        exact = image_size == (index.height, index.width)
        kept = f"canvases of {index.height}×{index.width}"
        if files := [split for split, kind in index.kinds.items() if kind == "file"]:
            kept += f", {' and '.join(files)} as the files were"
    else:
        exact = all(bool((table.sizes.min(1) <= index.height).all()) for found in tables.values() for table in found)
        image_size = image_size and limited(*image_size, index.height)
        kept = f"JPEG, the shorter side at most {index.height}"
    skipped = [f"{index.skipped:,} images that could not be read are not in it"] if index.skipped else []
    return Source(
        description=name,
        class_names=index.class_names,
        splits=splits,
        image_size=image_size,
        channels=index.channels,
        stored=Stored(index.height, index.width, squeezed=index.jpeg_quality is None, exact=exact),
        notes=(f"prepared from {index.source} on {index.date}, {kept}", *skipped),
    )


def read_index(root: Path, name: str) -> Index:
    """Reads prepared.json; raises UserError if it is not there, not finished or not to be read."""
    try:
        index = Index.of_json((root / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = f"has no {INDEX}" if root.is_dir() else "is no folder" if root.exists() else "does not exist"
        raise UserError(
            f"config.data.source {name}: {printable(str(root))} {what}; expected what python -m jaxnets.prepare "
            f"--source S --out DIR wrote"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{INDEX} of {name} cannot be read ({error})") from error
    except Damaged as error:
        raise UserError(f"{name}: {error}") from error
    if index.tables is None:
        missing = [
            shard for split in index.shards for shard in index.names(split) if not (root / (shard + TABLE)).exists()
        ]
        listed = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise UserError(
            f"{name} is not finished{f': {listed} are missing' if missing else ''}. Run the command that prepares it "
            f"again, and it goes on where it stopped"
        )
    return index


def pixel_settings(spec: DataConfig) -> dict[str, object]:
    """Returns the config's keys that have a say in a source's pixels, and their values."""
    return {entry.name: getattr(spec, entry.name) for entry in fields(spec) if entry.name in PIXEL_KEYS}


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

    def reduced(self, index: int, least: tuple[int, int] | None) -> Reduced:
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

    def reduced(self, index: int, least: tuple[int, int] | None) -> Reduced:
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

    def reduced(self, index: int, least: tuple[int, int] | None) -> Reduced:
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


def read_table(root: Path, index: Index, split: str, shard: str) -> tuple[Table, int]:
    """Returns the table of a shard, whose size is as it was, and how many bytes lie before its first image.

    Raises:
        Damaged: if one of its two files is missing, cut short, or not the one that was written.
    """
    try:
        table, checksum = Table.of_file(root / (shard + TABLE))
    except OSError as error:
        raise Damaged(f"{shard + TABLE} cannot be read ({error.strerror})") from error
    if index.tables is None or checksum != index.tables.get(shard):
        raise Damaged(f"{shard + TABLE} is not the one that was written")
    if len(table) and not 0 <= table.labels.min() <= table.labels.max() < len(index.class_names):
        raise Damaged(f"{shard + TABLE} has labels outside 0 … {len(index.class_names) - 1}")
    classes = len(index.class_names)
    sound = bool((table.sizes > 0).all() and (table.nbytes > 0).all())
    sound = sound and (table.targets is None or table.targets.shape == (len(table), classes))
    if not sound or (index.kinds[split] == "canvas" and (table.nbytes != math.prod(index.shape)).any()):
        raise Damaged(f"{shard + TABLE} says what cannot be of its images")
    header = index.header(split, len(table))
    check_shard(root / index.file(split, shard), table, header)
    return table, len(header)


def _read_tables(root: Path, index: Index, split: str, name: str) -> list[Table]:
    return [_or_refuse(name, index, partial(read_table, root, index, split, shard))[0] for shard in index.names(split)]


def _check_sample(root: Path, index: Index, split: str, tables: Sequence[Table]) -> None:
    """Compares some examples of a split with their checksums; raises Damaged."""
    ends = np.cumsum([len(table) for table in tables])
    sample = np.unique(np.linspace(0, ends[-1] - 1, min(int(ends[-1]), _SAMPLED)).astype(int))
    for shard, table, end in zip(index.names(split), tables, ends, strict=True):
        rows = sample - (end - len(table))
        here = rows[(rows >= 0) & (rows < len(table))]
        check_examples(root / index.file(split, shard), table, len(index.header(split, 0)), here.tolist())


def _open_split(
    root: Path, index: Index, split: str, tables: list[Table], white_level: int
) -> "CanvasSplit | FileSplit":
    paths = [root / index.file(split, shard) for shard in index.names(split)]
    canvases = index.kinds[split] == "canvas"
    return CanvasSplit(paths, tables, index.shape) if canvases else FileSplit(paths, tables, white_level)


def _or_refuse(name: str, index: Index, work: Callable[[], _T]) -> _T:
    try:
        return work()
    except Damaged as error:
        raise UserError(
            f"{name}: {error}. Copy it again from where it was prepared, or run the command that prepared it again "
            f"(--source {index.source}), which writes such shards anew and keeps the others"
        ) from error
