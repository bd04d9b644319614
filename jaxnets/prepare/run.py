"""Prepares a source, or a process's share of it; what is finished of it already is checked and kept."""

import datetime
import importlib.metadata
import math
import os
import shutil
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL
from PIL import features

from jaxnets.config import DataConfig
from jaxnets.cores import cores
from jaxnets.data.sources import Source, Split
from jaxnets.data.sources.base import Encoded
from jaxnets.data.sources.names import printable
from jaxnets.data.sources.prepared import pixel_settings
from jaxnets.data.sources.prepared_files import INDEX, Damaged, Index, Kind, Table, bounds, check_examples
from jaxnets.errors import UserError
from jaxnets.prepare.files import explained, new_file
from jaxnets.prepare.progress import Progress
from jaxnets.prepare.shard import Shard

SHARD_BYTES = 256 * 2**20  # of a shard at least, where a split has so many
_MOST_SHARDS = 128  # of a split: each is an open file
_JPEG_SHARE = 0.1  # of the bytes of a canvas, about, that a JPEG file has
_NAMED = 10  # unreadable images that a message names

_AGAIN = "what is finished is kept, and the same command goes on from there"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    examples: int  # that are stored in all shards; of this process's share, where others are still at work
    skipped: int
    missing: int  # shards that other processes have not finished yet


def describe(
    source: Source, spec: DataConfig, size: tuple[int, int], jpeg_quality: int | None, shard_bytes: int = SHARD_BYTES
) -> Index:
    """Returns what prepared.json says of a source before it is finished.

    Args:
        source: as it is, without a split that is drawn from it.
        spec: with which it was opened.
        size: height and width of the canvases; of JPEG files, twice the limit of the shorter side.
        jpeg_quality: 1 … 100, or None for canvases.
        shard_bytes: of a shard at least, where a split has so many.
    """
    channels = spec.channels or source.channels
    # What is only evaluated keeps its own pixels where they would be changed: a canvas is not what evaluation sees.
    exact = source.image_size == size and source.channels == channels
    kinds: dict[str, Kind] = {}
    for name, split in source.splits.items():
        own_files = name != "train" and not exact and isinstance(split, Encoded)
        kinds[name] = "jpeg" if jpeg_quality is not None else "file" if own_files else "canvas"

    def shards(split: str, examples: int) -> int:
        total = examples * math.prod(size) * channels * (1 if kinds[split] == "canvas" else _JPEG_SHARE)
        return max(1, min(examples, math.ceil(total / max(shard_bytes, total / _MOST_SHARDS))))

    return Index(
        source=source.description,
        jaxnets=importlib.metadata.version("jaxnets"),
        date=datetime.date.today().isoformat(),
        decoder={
            "pillow": PIL.__version__,
            "libjpeg": features.version("libjpeg_turbo") or features.version("jpg"),
            **pixel_settings(spec),
        },
        height=size[0],
        width=size[1],
        channels=channels,
        jpeg_quality=jpeg_quality,
        kinds=kinds,
        image_size=source.image_size,
        class_names=source.class_names,
        examples={name: len(split) for name, split in source.splits.items()},
        source_crc32={name: _crc32(split) for name, split in source.splits.items()},
        shards={name: shards(name, len(split)) for name, split in source.splits.items()},
        tables=None,
    )


def prepare(
    source: Source,
    index: Index,
    out: Path,
    progress: Progress,
    *,
    threads: int | None = None,
    process: int = 0,
    processes: int = 1,
    skip_corrupt: bool = False,
) -> Outcome:
    """Writes the shards that are this process's share, and prepared.json where all others are there too.

    Raises:
        UserError: if `out` holds something else, cannot be written to or is full, or if images cannot be read and
            `skip_corrupt` is False. What is finished is kept.
    """
    index = _begin(index, out)
    work = [
        Shard(index=index, split_name=split, split=source.splits[split], first=first, last=last, folder=out, name=name)
        for split in index.shards
        for name, (first, last) in zip(
            index.names(split), bounds(index.examples[split], index.shards[split]), strict=True
        )
    ]
    own = work[process::processes]
    unreadable: list[str] = []
    threads = threads or cores()
    with ThreadPoolExecutor(threads) as pool, progress.of(sum(map(len, own))), explained(out, _AGAIN):

        def tick(done: int, messages: Sequence[str]) -> None:
            unreadable.extend(messages)
            progress.advance(done, messages)

        waiting = []
        for shard, kept in zip(own, pool.map(lambda shard: _kept(shard, skip_corrupt), own), strict=True):
            if kept is None:
                waiting.append(shard)
            else:
                tick(len(shard), list(kept.skipped))
        _refuse_small_disk(waiting, out)
        for shard in waiting:
            shard.write(pool, threads, tick)
    if unreadable and not skip_corrupt:
        raise UserError(
            f"{_count(len(unreadable), 'image')} cannot be read: {_listed(unreadable)}. Mend them and run the "
            f"same command again, or leave them out with --skip-corrupt: what is finished is kept"
        )
    return _finish(work, own, index, out, skip_corrupt)


def _crc32(split: Split) -> int:
    checksum = 0
    for column in (split.labels, split.identities, split.groups, getattr(split, "targets", None)):
        if column is not None:
            checksum = zlib.crc32(np.ascontiguousarray(column).tobytes(), checksum)
    return checksum


_FREE = ("source", "date", "tables", "skipped")  # what may differ between two commands that write one data set


def _begin(index: Index, out: Path) -> Index:
    """Makes the folder and prepared.json, or returns what that says where it is there; raises UserError."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: give a folder")
    with explained(out, "give --out another folder, or mend its permissions"):
        out.mkdir(parents=True, exist_ok=True)
        try:
            text = (out / INDEX).read_text(encoding="utf-8")
        except FileNotFoundError:
            if found := sorted(name for name in os.listdir(out) if not name.startswith(f".{INDEX}")):
                raise UserError(
                    f"{out} holds other files ({printable(found[0])}): give --out a new or an empty folder"
                ) from None
            _write(index, out)
            return index
    try:
        before = Index.of_json(text)
    except Damaged as error:
        raise UserError(f"{out}: {error}; delete the folder, or give --out another") from error
    differing = [name for name in vars(index) if getattr(before, name) != getattr(index, name) and name not in _FREE]
    if set(differing) & {"examples", "source_crc32", "class_names"}:
        had, has = (", ".join(f"{count:,} {name}" for name, count in x.examples.items()) for x in (before, index))
        raise UserError(
            f"{out} was begun when {index.source} had other images, names, labels or groups ({had}; now {has}): give "
            f"--out another folder, or delete this one"
        )
    if differing:
        said = (
            f"{name} was {_short(getattr(before, name))} and is {_short(getattr(index, name))}" for name in differing
        )
        raise UserError(f"{out} was begun otherwise ({'; '.join(said)}): give --out another folder, or delete this one")
    return before


def _kept(shard: Shard, skip_corrupt: bool) -> Table | None:
    """Returns the table of a shard that is finished and whole; images that could not be read are tried again."""
    try:
        table = shard.check()
    except Damaged:
        return None
    return None if len(table.skipped) and not skip_corrupt else table


def _refuse_small_disk(shards: list[Shard], out: Path) -> None:
    shards = [shard for shard in shards if shard.index.kinds[shard.split_name] == "canvas"]
    needed = sum(len(shard) * math.prod(shard.index.shape) for shard in shards)
    free = shutil.disk_usage(out).free
    replaced = sum(shard.path.stat().st_size for shard in shards if shard.path.exists())
    if needed > free + replaced:
        raise UserError(
            f"the disk of {out} has {free / 2**20:,.0f} MiB left, and {needed / 2**20:,.0f} MiB are to be "
            f"written: make room, give --out another disk, take a smaller --size, or --jpeg 90 for about a tenth of it"
        )


def _finish(work: list[Shard], own: list[Shard], index: Index, out: Path, skip_corrupt: bool) -> Outcome:
    tables: dict[str, tuple[Table, int]] = {}
    for shard in work:
        try:
            tables[shard.name] = shard.table()
        except Damaged:
            continue
    stored = sum(len(table) for table, _ in tables.values())
    skipped = [message for table, _ in tables.values() for message in table.skipped]
    missing = len(work) - len(tables)
    if not missing:
        if skipped and not skip_corrupt:
            raise UserError(
                f"{_count(len(skipped), 'image')} of other processes' shares cannot be read: {_listed(skipped)}. Run "
                f"their commands again with --skip-corrupt to leave them out"
            )
        for split in index.shards:
            if index.examples[split] and not any(len(tables[name][0]) for name in index.names(split)):
                raise UserError(f"none of the images of {split} can be read: {_listed(skipped)}")
        finished = replace(index, tables={name: crc32 for name, (_, crc32) in tables.items()}, skipped=len(skipped))
        if finished != index:
            with explained(out, _AGAIN):
                _write(finished, out)
    else:
        stored = sum(len(tables[shard.name][0]) for shard in own if shard.name in tables)
    return Outcome(examples=stored, skipped=len(skipped), missing=missing)


def verify(out: Path, index: Index, progress: Progress, threads: int | None = None) -> list[str]:
    """Reads all of a finished data set; returns what is wrong with it, a sentence for each damaged shard."""
    from jaxnets.data.sources.prepared import read_table

    names = [(split, name) for split in index.shards for name in index.names(split)]

    def check(shard: tuple[str, str]) -> tuple[int, str]:
        split, name = shard
        try:
            table, header = read_table(out, index, split, name)
            check_examples(out / index.file(split, name), table, header, range(len(table)))
        except Damaged as error:
            return 0, str(error)
        return len(table), ""

    wrong = []
    with ThreadPoolExecutor(threads or cores()) as pool, progress.of(sum(index.examples.values()) - index.skipped):
        for examples, message in pool.map(check, names):
            progress.advance(examples, ())
            if message:
                wrong.append(message)
    return wrong


def _write(index: Index, out: Path) -> None:
    with new_file(out / INDEX, waits=True) as file:
        file.write(index.to_json().encode())


def _listed(messages: Sequence[str]) -> str:
    return "; ".join(messages[:_NAMED]) + (f"; and {len(messages) - _NAMED:,} more" if len(messages) > _NAMED else "")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
