"""Opens what `python -m jaxnets.prepare` wrote."""

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from jaxnets.config import DataConfig
from jaxnets.data.sources.base import Source, Split, Stored
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
)
from jaxnets.data.sources.prepared_splits import CanvasSplit, FileSplit
from jaxnets.errors import UserError

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


def _open_split(root: Path, index: Index, split: str, tables: list[Table], white_level: int) -> CanvasSplit | FileSplit:
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
