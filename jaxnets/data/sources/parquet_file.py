"""Tables of images in Parquet files: paths of images, or the images themselves."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnets.config import DataConfig
from jaxnets.data.sources import kept
from jaxnets.data.sources.base import Source
from jaxnets.data.sources.bucket import BUCKET
from jaxnets.data.sources.names import hashes, printable
from jaxnets.data.sources.shards import find_shards, shard_names, shard_roles
from jaxnets.data.sources.stored import Stored, StoredImages, surveyed
from jaxnets.data.sources.table.arrow import (
    cells_of,
    choose_columns,
    concatenated,
    describe,
    read_rows,
    refuse_other_names,
)
from jaxnets.data.sources.table.assemble import assemble, refuse_missing, roles_of
from jaxnets.data.sources.table.files import source_of_files
from jaxnets.data.sources.table.rows import encode
from jaxnets.errors import UserError

if TYPE_CHECKING:
    import pyarrow

_log = logging.getLogger(__name__)

_BATCH = 64  # images that are in memory at once while they are unpacked
_VERSION = 1  # of what is kept in the cache
_ARRAYS = ("offset", "size", "content", "paths")


def open_parquet(location: str, spec: DataConfig, known: Sequence[str] | None) -> Source:
    """Opens a Parquet file, the files that a pattern fits, or those in a folder.

    Columns are as in `csv:`. The images are paths, as there, or stand in the table: bytes, or {bytes, path} as Hugging
    Face `datasets` writes them; whose names of classes are understood. Rows of Parquet cannot be read one by one, so
    images that stand in the table are unpacked once, into the user's cache.

    Args:
        location: a file, a folder, or a pattern (`DIR/train-*.parquet`, `DIR/part-{000..127}.parquet`).
        spec: `root`, `table`, `white_level`.
        known: classes to evaluate on, or None to train.

    Returns:
        A source with the splits that a column names, else those that the files' names say, else "train" or "all".

    Raises:
        UserError: as `csv:`, and if pyarrow is missing or a file is no Parquet.
    """
    if location.startswith(BUCKET):
        raise UserError(f"parquet:{location} lies in a bucket: download it, or give tar: shards, which are read there")
    files = find_shards(location, "parquet", ".parquet")
    title = printable(os.path.basename(files[0])) if len(files) == 1 else printable(location)
    tables = [_open(file, location) for file in files]
    schema = tables[0].schema_arrow
    for file, table in zip(files, tables, strict=True):
        if table.schema_arrow.names != schema.names:
            raise UserError(
                f"{printable(file)} has other columns ({', '.join(table.schema_arrow.names)}) than "
                f"{printable(files[0])} ({', '.join(schema.names)}): give files of one kind"
            )
    described = describe(schema)
    for file, table in zip(files, tables, strict=True):
        refuse_other_names(described, describe(table.schema_arrow), printable(file))
    columns, table_spec = choose_columns(schema, described, title, spec.table, known is None)
    spec = replace(spec, table=table_spec)
    stands_within = columns.image in described.images
    wanted = [name for name in columns.wanted() if not (stands_within and name == columns.image)]
    try:
        parts = [table.read(columns=wanted) for table in tables]
    except Exception as error:  # of pyarrow, on damaged bytes
        raise UserError(f"{title} cannot be read: {_shown(error)}") from error
    read = concatenated(parts, wanted, title)
    if not len(read):
        raise UserError(f"{title} has no rows: expected one for each image")
    lengths = [table.metadata.num_rows for table in tables]
    roles, notes = shard_roles(files, title, known is not None)
    part = None
    if set(roles) != {"train" if known is None else "all"}:
        part = encode(role for role, length in zip(roles, lengths, strict=True) for _ in range(length))
    rows = read_rows(read, columns, described, title, part)
    description = f"parquet:{printable(location)}"
    if not stands_within:
        cells = cells_of(read[columns.image])
        return source_of_files(rows, cells, files[0], spec, known, description)
    stored = _joined([_unpack(*each, columns.image) for each in zip(files, tables, shard_names(files), strict=True)])
    missing = refuse_missing(rows, stored.size < 0, "is empty", spec.table)
    codes, _, said = roles_of(rows, spec.table, known is not None)
    source = surveyed(assemble(rows, StoredImages(stored, spec.white_level), codes, spec.table, known, description))
    return replace(source, notes=(*notes, *said, *missing, *source.notes))


def _open(file: str, location: str) -> "pyarrow.parquet.ParquetFile":
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            f"config.data.source parquet:{printable(location)} needs pyarrow: pip install 'jaxnets[parquet]'"
        ) from None
    try:
        return pyarrow.parquet.ParquetFile(file, memory_map=True)
    except Exception as error:  # of pyarrow, on what is no Parquet
        raise UserError(f"{printable(file)} cannot be read as a Parquet file: {_shown(error)}") from error


def _unpack(file: str, table: "pyarrow.parquet.ParquetFile", name: str, column: str) -> Stored:
    """Returns where the images of a file lie once they are unpacked."""
    at = kept.kept_at("parquet", _VERSION, *kept.version_of_file(file), column)
    images = at.with_suffix(".images")
    arrays = kept.load(at, _ARRAYS)
    expected = 0 if arrays is None else int(np.maximum(arrays["size"], 0).sum())
    if arrays is None or not images.is_file() or images.stat().st_size != expected:
        _log.info("unpacking the images of %s into %s, once", printable(file), images)
        arrays = _write_images(table, column, images, printable(file))
        kept.save(at, arrays)
    count = len(arrays["size"])
    paths = kept.unpack(arrays["paths"], count)
    return Stored(
        files=[str(images)],
        file=np.zeros(count, np.int32),
        offset=arrays["offset"],
        size=arrays["size"],
        names=[printable(path) if path else f"{name}[{row}]" for row, path in enumerate(paths)],
        content=arrays["content"],
    )


def _write_images(table: "pyarrow.parquet.ParquetFile", column: str, to: Path, title: str) -> dict[str, np.ndarray]:
    sizes: list[int] = []
    paths: list[str] = []
    content = []
    partial = to.with_suffix(f".{os.getpid()}.partial")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as out:
            for batch in table.iter_batches(_BATCH, columns=[column], use_threads=False):
                stored, named = _parts(batch.column(0))
                for image, path in zip(stored, named, strict=True):
                    encoded = image.as_buffer()
                    sizes.append(-1 if encoded is None else encoded.size)
                    paths.append(path)
                    content.append(hashes([b"" if encoded is None else encoded.to_pybytes()])[0])
                    if encoded is not None:
                        out.write(encoded)
        os.replace(partial, to)
    except OSError as error:
        raise UserError(
            f"the images of {title} cannot be unpacked into {to}: {error.strerror or error}; XDG_CACHE_HOME names "
            f"another folder for the cache"
        ) from error
    except Exception as error:  # of pyarrow, on damaged bytes
        raise UserError(f"{title} cannot be read: {_shown(error)}") from error
    finally:
        partial.unlink(missing_ok=True)
    size = np.array(sizes, np.int64)
    offset = np.cumsum(np.maximum(size, 0)) - np.maximum(size, 0)
    return {"offset": offset, "size": size, "content": np.array(content, np.uint64), "paths": kept.pack(paths)}


def _parts(column: Any) -> tuple[Any, list[str]]:
    """Returns the bytes and the paths of a column of images."""
    import pyarrow

    if not pyarrow.types.is_struct(column.type):
        return column, [""] * len(column)
    names = [field.name for field in column.type]
    fields = column.flatten()
    paths = fields[names.index("path")].to_pylist() if "path" in names else [None] * len(column)
    return fields[names.index("bytes")], [(path or "").replace("\0", "") for path in paths]


def _joined(parts: Sequence[Stored]) -> Stored:
    return Stored(
        files=[part.files[0] for part in parts],
        file=np.repeat(np.arange(len(parts), dtype=np.int32), [len(part.names) for part in parts]),
        offset=np.concatenate([part.offset for part in parts]),
        size=np.concatenate([part.size for part in parts]),
        names=[name for part in parts for name in part.names],
        content=np.concatenate([part.content for part in parts if part.content is not None]),
    )


def _shown(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + " …"
