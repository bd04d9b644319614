"""Where a run may lie, a directory or a folder of a bucket (gs://), and what is done differently in the two.

A bucket holds objects and no directories: an object appears whole or not at all, nothing can be appended to it, a
folder is there when something is in it, and there are no locks.
"""

import base64
import errno
import hashlib
import importlib.util
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeAlias

from etils import epath

from jaxnets.errors import UserError

Place: TypeAlias = Path | epath.Path

BUCKET = "gs://"
_PLAIN = re.compile(r"[\w/ .,=+@-]*")  # paths that Orbax and TensorStore take at their word, on a disk
# What is more than itself to them in an address: patterns, control characters, what is no text, further addresses.
_NOT_IN_BUCKETS = re.compile(r"[\[\]*?\x00-\x1f\x7f\ud800-\udfff]|(?<=/)\.\.(?=/|$)|(gs|s3|az|hf):(?=/|$)")
_LONGEST = 3584  # bytes of a directory's path: the files of a checkpoint have up to 512 more, and 4,096 is the limit
_LONGEST_NAME = 255  # bytes, in most file systems
_COMMITTED = "commit_success.txt"  # Orbax's mark on a checkpoint in a bucket that is written to its end

# Size in bytes, and MD5 in base 64. Cloud Storage keeps it of every object but of those that were put together of
# parts, as its own tools upload large files; there it is "".
Fingerprint = list[int | str]


def open_place(path: str | Place) -> Place:
    """Returns the path of a run: in a bucket where it begins with gs://, else a directory.

    Raises:
        UserError: if it is another kind of address, if no run can lie there, or if what reads buckets is not installed.
    """
    text = str(path)
    if not text.startswith(BUCKET):
        if "://" in text:
            raise UserError(f"{text} is neither a directory nor a folder of a bucket (gs://BUCKET/FOLDER)")
        return _directory(text)
    folder = text.removeprefix(BUCKET).partition("/")[2]
    if not folder.strip("/"):
        raise UserError(f"{text} names no folder of a bucket: give gs://BUCKET/FOLDER")
    if found := _NOT_IN_BUCKETS.search(f"/{folder}"):
        raise UserError(
            f"a run's address in a bucket must be without {found[0]!r}, which what reads buckets takes for more than a "
            f"name, found {text!r}: choose another name"
        )
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(f"{text} lies in a bucket, and what reads buckets is missing: pip install 'jaxnets[gcs]'")
    import fsspec.config

    # With TensorFlow installed, etils would read buckets with it.
    os.environ.setdefault("EPATH_USE_TF", "false")
    # What other processes write must be seen; by default a listing is kept for ever.
    fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
    return epath.Path(text)


def _directory(text: str) -> Path:
    if not text:
        raise UserError("the name of a run directory is empty: give a path")
    expanded = os.path.expanduser(text)  # as a shell does it: where there is no user of a name, ~name is that name
    if expanded == "~" or expanded.startswith("~/"):
        raise UserError(f"{text} needs a home directory, and there is none: set HOME, or give the whole path")
    if "\0" in expanded:
        raise UserError(f"a directory's name cannot hold a zero byte, found {text!r}")
    directory = Path(expanded)
    whole = os.fsencode(directory.absolute())
    if len(whole) > _LONGEST or max(map(len, whole.split(b"/"))) > _LONGEST_NAME:
        raise UserError(
            f"a directory's path may have {_LONGEST} bytes and each name in it {_LONGEST_NAME}, found one of "
            f"{len(whole)} bytes ({text[:50]}…): choose a shorter one"
        )
    return directory


@contextmanager
def literal(folder: Place) -> Iterator[Place]:
    """Yields a path to `folder` in which no character is more than itself to Orbax and TensorStore.

    They take brackets and stars for patterns, a backslash for a slash and gs: for an address, and so write what they
    cannot find again. A directory of such a name is reached through a link for as long as they work.

    Raises:
        UserError: if there can be no such link.
    """
    if in_bucket(folder) or _PLAIN.fullmatch(str(folder)):
        yield folder
        return
    with ExitStack() as held:
        try:
            # ignore_cleanup_errors: whoever tidies temporary folders may have been here
            around = tempfile.TemporaryDirectory(prefix="jaxnets-", ignore_cleanup_errors=True)
            link = Path(held.enter_context(around)) / "run"
            link.symlink_to(absolute(folder))
        except OSError as error:
            raise UserError(
                f"{str(folder)!r} must be linked to from the folder for temporary files, for its name, and that cannot "
                f"be done ({error.strerror}): give it a name of letters, digits and '.,=+@-', or set TMPDIR"
            ) from error
        if not _PLAIN.fullmatch(str(link)):
            raise UserError(
                f"the folder for temporary files, {str(link.parent.parent)!r}, must have a name of letters, digits and "
                f"'.,=+@-' alone: set TMPDIR to another"
            )
        yield link


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


def kind_of(path: Place) -> Literal["file", "directory"] | None:
    """Returns what lies at a path, None where nothing does.

    Raises:
        OSError: where that cannot be found out. What paths and their libraries offer, `exists` and the like, takes a
            network that is gone, or a missing permission, for nothing being there.
    """
    with bucket_errors(path):
        try:
            if isinstance(path, Path):
                return "directory" if stat.S_ISDIR(path.stat().st_mode) else "file"
            return "directory" if _bucket().info(str(path))["type"] == "directory" else "file"
        except (FileNotFoundError, NotADirectoryError):
            return None


def names_in(folder: Place) -> list[str]:
    """Returns the names of what lies directly in a folder, none where there is no such folder.

    Raises:
        OSError: where that cannot be found out.
    """
    with bucket_errors(folder):
        try:
            if isinstance(folder, Path):
                return os.listdir(folder)
            own = str(folder).removeprefix(BUCKET)
            return [path.rpartition("/")[2] for path in _bucket().ls(str(folder), detail=False) if path != own]
        except (FileNotFoundError, NotADirectoryError):
            return []


def is_committed(folder: Place) -> bool:
    """Whether a checkpoint's folder was written to its end; a directory gets its name only then.

    Raises:
        OSError: where that cannot be found out.
    """
    return kind_of(folder / _COMMITTED) == "file" if in_bucket(folder) else kind_of(folder) == "directory"


def remove_folder(folder: Place) -> None:
    """Removes as much of a folder as can be; in a bucket, it is no longer committed from the first moment on."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with suppress(OSError), bucket_errors(folder):
        (folder / _COMMITTED).unlink(missing_ok=True)
        folder.rmtree(missing_ok=True)


def write_whole(path: Place, content: str | bytes) -> None:
    """Writes a file so that no reader ever sees half of it: in a directory, under another name first.

    Raises:
        OSError: if it cannot be written.
    """
    whole = content.encode() if isinstance(content, str) else content
    if not isinstance(path, Path):
        with bucket_errors(path):
            path.write_bytes(whole)
        return
    path = path.absolute()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(whole)
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
