"""Files that are there whole or not at all, also after the power failed, and that one process writes at a time."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from jaxnets.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def new_file(path: Path, *, waits: bool = False) -> Iterator[BinaryIO]:
    """Yields a file that takes the place of `path` when it is written to its end, and leaves nothing before.

    Args:
        path: where it will be.
        waits: for another process that is writing it; else that is a mistake.

    Raises:
        UserError: if another process is writing it.
        OSError: if it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    file = _locked(partial, waits)
    try:
        with file:
            file.truncate()
            yield file
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)  # while it is locked: whoever waits for it sees that it has gone
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    _sync_folder(path.parent)


def _locked(partial: Path, waits: bool) -> BinaryIO:
    import fcntl

    while True:
        file = os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError:
            file.close()
            raise UserError(
                f"another process is writing {partial.parent / partial.name[1:].removesuffix('.partial')}: give each "
                f"process a --process of its own, or wait until that one has ended"
            ) from None
        except OSError:  # a file system without locks
            return file
        with suppress(OSError):
            if os.stat(partial).st_ino == os.fstat(file.fileno()).st_ino:
                return file
        file.close()  # it was finished between our opening it and locking it


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every file system can
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


@contextmanager
def explained(folder: Path, again: str) -> Iterator[None]:
    """Makes one message of what goes wrong when files are written; `again` says what to do then."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise UserError(f"the disk of {folder} is full: make room; {again}") from error
        raise UserError(f"{folder} cannot be written to ({error.strerror or error}): {again}") from error
