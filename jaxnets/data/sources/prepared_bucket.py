"""Prepared data in a bucket: copied once to a disk, where its files can be mapped into memory."""

import hashlib
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from jaxnets.cache import cache_directory
from jaxnets.data.sources.bucket import download, read_whole, sizes_below
from jaxnets.data.sources.prepared_files import INDEX, TABLE, Damaged, Index
from jaxnets.errors import UserError

_AT_ONCE = 8  # files under way
_log = logging.getLogger(__name__)


def copied(address: str, name: str) -> Path:
    """Returns a folder of the user's cache with the files of a prepared data set; those that are there stay.

    Args:
        address: gs://BUCKET/FOLDER.
        name: what messages call it.

    Raises:
        UserError: if the bucket cannot be read, holds no finished set, or if the disk is too small.
    """
    address = address.rstrip("/")
    try:
        text = read_whole(f"{address}/{INDEX}")
        index = Index.of_json(text.decode("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{name} has no {INDEX}: expected what python -m jaxnets.prepare wrote, copied there") from None
    except (OSError, UnicodeDecodeError, Damaged) as error:
        raise UserError(f"{name}: {error}") from error
    # Of another address, or prepared anew at the same, it is another folder.
    folder = cache_directory() / "prepared" / hashlib.sha256(address.encode() + text).hexdigest()[:24]
    sizes = sizes_below(address)
    shards = [(split, shard) for split in index.shards for shard in index.names(split)]
    wanted = [file for split, shard in shards for file in (shard + TABLE, index.file(split, shard))]
    if missing := [file for file in wanted if file not in sizes]:
        raise UserError(f"{name}: {missing[0]} is missing: copy it there again from where it was prepared")
    absent = [file for file in wanted if _size(folder / file) != sizes[file]]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        needed = sum(sizes[file] for file in absent)
        if needed > shutil.disk_usage(folder).free:
            raise UserError(
                f"{name} has {needed / 2**30:.1f} GiB, which the disk of {folder} does not hold: set XDG_CACHE_HOME to "
                f"a larger one, or give a folder that the bucket is mounted at"
            )
        if absent:
            _log.info("copying %s to %s: %.1f GiB", name, folder, needed / 2**30)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda file: _fetch(f"{address}/{file}", folder / file), absent))
        _replace(folder / INDEX, text)
    except OSError as error:
        raise UserError(f"{name} cannot be copied to {folder} ({error.strerror or error})") from error
    return folder


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1


def _fetch(address: str, file: Path) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}")  # another process of this host may be at it too
    try:
        download(address, partial)
        partial.replace(file)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def _replace(file: Path, content: bytes) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(file)
