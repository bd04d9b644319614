"""Files of a bucket (gs://), as the sources read them: their names, and ranges of their bytes."""

import functools
import importlib.util
import os
from pathlib import Path
from typing import Any

from jaxnets.errors import UserError

BUCKET = "gs://"


def read_range(path: str, offset: int, size: int) -> bytes:
    """Returns bytes of an object; raises OSError, of whatever the library raises."""
    try:
        content: bytes = _bucket().cat_file(path, start=offset, end=offset + size)
        return content
    except Exception as error:  # of gcsfs, google.auth, aiohttp, …
        raise OSError(" ".join(str(error).split()) or type(error).__name__) from error


def read_whole(path: str) -> bytes:
    """Returns an object's content; raises OSError, FileNotFoundError where there is none."""
    try:
        content: bytes = _bucket().cat_file(path)
        return content
    except FileNotFoundError:
        raise
    except Exception as error:
        raise OSError(" ".join(str(error).split()) or type(error).__name__) from error


def download(path: str, to: Path) -> None:
    """Copies an object to a file; raises OSError, of whatever the library raises."""
    try:
        _bucket().get_file(path, str(to))
    except Exception as error:
        raise OSError(" ".join(str(error).split()) or type(error).__name__) from error


def sizes_below(folder: str) -> dict[str, int]:
    """Returns the bytes of each object in a folder and below it, by its path from there.

    Raises:
        UserError: if the bucket cannot be looked into.
    """
    try:
        found = _bucket().find(folder, detail=True)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{folder} cannot be looked into: {' '.join(str(error).split())}") from error
    prefix = len(folder.removeprefix(BUCKET).rstrip("/")) + 1
    return {path[prefix:]: int(about["size"]) for path, about in found.items()}


def matching(pattern: str) -> list[str]:
    """Returns the addresses of the objects that a pattern fits, sorted.

    Raises:
        UserError: if the bucket cannot be looked into.
    """
    try:
        found = _bucket().glob(pattern, detail=True)
        return sorted(BUCKET + path for path, about in found.items() if about["type"] == "file")
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{pattern} cannot be looked into: {' '.join(str(error).split())}") from error


def version_of(path: str) -> tuple[int, str]:
    """Returns an object's size, and what changes when its content does; raises OSError."""
    try:
        about = _bucket().info(path)
    except Exception as error:
        raise OSError(" ".join(str(error).split()) or type(error).__name__) from error
    return int(about["size"]), str(about.get("md5Hash") or about.get("generation") or about.get("mtime"))


def opened(path: str) -> Any:
    """Returns an object as a file that is read ahead in blocks of 8 MiB."""
    return _bucket().open(path, "rb", block_size=8 * 2**20, cache_type="readahead")


@functools.cache
def _bucket() -> Any:
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError("what reads buckets (gs://) is missing: pip install 'jaxnets[gcs]'")
    import fsspec

    os.environ.setdefault("EPATH_USE_TF", "false")
    return fsspec.filesystem("gs", use_listings_cache=False)
