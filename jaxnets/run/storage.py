"""Where a run may lie, a directory or a folder of a bucket (gs://), and what is done differently in the two.

A bucket holds objects and no directories: an object appears whole or not at all, nothing can be appended to it, a
folder is there when something is in it, and there are no locks.
"""

import base64
import errno
import hashlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from etils import epath

from jaxnets.errors import UserError

Place: TypeAlias = Path | epath.Path

BUCKET = "gs://"
_COMMITTED = "commit_success.txt"  # Orbax's mark on a checkpoint in a bucket that is written to its end

# Size in bytes, and MD5 in base 64. Cloud Storage keeps it of every object but of those that were put together of
# parts, as its own tools upload large files; there it is "".
Fingerprint = list[int | str]


def open_place(path: str | Place) -> Place:
    """Returns the path of a run: in a bucket where it begins with gs://, else a directory.

    Raises:
        UserError: if it is another kind of address, or if what reads buckets is not installed.
    """
    text = str(path)
    if not text.startswith(BUCKET):
        if "://" in text:
            raise UserError(f"{text} is neither a directory nor a folder of a bucket (gs://BUCKET/FOLDER)")
        return Path(text).expanduser()
    if not text.removeprefix(BUCKET).partition("/")[2].strip("/"):
        raise UserError(f"{text} names no folder of a bucket: give gs://BUCKET/FOLDER")
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(f"{text} lies in a bucket, and what reads buckets is missing: pip install 'jaxnets[gcs]'")
    import fsspec.config

    # With TensorFlow installed, etils would read buckets with it.
    os.environ.setdefault("EPATH_USE_TF", "false")
    # What other processes write must be seen; by default a listing is kept for ever.
    fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
    return epath.Path(text)


def in_bucket(path: Place) -> bool:
    return not isinstance(path, Path)


def absolute(path: Place) -> Place:
    return path.absolute() if isinstance(path, Path) else path


@contextmanager
def bucket_errors(path: Place) -> Iterator[None]:
    """Makes an OSError with a strerror of one line of whatever the libraries of buckets raise.

    So there is one kind to handle, in a directory and in a bucket.
    """
    try:
        yield
    except Exception as error:  # of gcsfs, google.auth, aiohttp, …
        if not in_bucket(path):
            raise
        number = errno.ENOENT if isinstance(error, FileNotFoundError) else errno.EIO
        raise OSError(number, " ".join(str(error).split()) or type(error).__name__) from error


def make_folder(folder: Place) -> None:
    """Makes a directory; in a bucket there is none to make, and a bucket that is not there is not made either."""
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)


def names_in(folder: Place) -> list[str]:
    """Returns the names of what lies directly in a folder, none where there is no such folder."""
    with bucket_errors(folder):
        return [inner.name for inner in folder.iterdir()] if folder.is_dir() else []


def is_committed(folder: Place) -> bool:
    """Whether a checkpoint's folder was written to its end; a directory gets its name only then."""
    with bucket_errors(folder):
        return (folder / _COMMITTED).exists() if in_bucket(folder) else folder.is_dir()


def remove_folder(folder: Place) -> None:
    """Removes as much of a folder as can be; in a bucket, it is no longer committed from the first moment on."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with suppress(OSError), bucket_errors(folder):
        (folder / _COMMITTED).unlink(missing_ok=True)
        folder.rmtree(missing_ok=True)


def write_whole(path: Place, content: str) -> None:
    """Writes a file so that no reader ever sees half of it: in a directory, under another name first.

    Raises:
        OSError: if it cannot be written.
    """
    if not isinstance(path, Path):
        with bucket_errors(path):
            path.write_text(content, encoding="utf-8")
        return
    path = path.absolute()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def fingerprints(folder: Place, below: str = "") -> dict[str, Fingerprint]:
    """Returns size and checksum of each file in the folders of `folder`, by its name within `folder`.

    With `below` only of the files in that one. Nothing is read from a bucket, which knows both.
    """
    root = folder / below if below else folder
    if isinstance(folder, Path):
        files = [file for file in root.rglob("*") if file.is_file() and file.parent != folder]
        return {file.relative_to(folder).as_posix(): _fingerprint(file.read_bytes()) for file in files}
    with bucket_errors(folder):
        objects: dict[str, dict[str, Any]] = _bucket().find(str(root), detail=True)
    prefix = len(str(folder).removeprefix(BUCKET)) + 1
    names = {path[prefix:]: about for path, about in objects.items()}
    return {name: [about["size"], about.get("md5Hash", "")] for name, about in names.items() if "/" in name}


def upload(file: Path, to: Place) -> None:
    """Copies a file to a bucket.

    Raises:
        OSError: if it cannot be written.
    """
    with bucket_errors(to):
        to.write_bytes(file.read_bytes())


def _fingerprint(content: bytes) -> Fingerprint:
    return [len(content), base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()]


def _bucket() -> Any:
    from etils.epath import backend

    return backend.fsspec_backend.fs(BUCKET)
