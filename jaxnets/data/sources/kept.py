"""Arrays that were found out about files, kept in the user's cache until the files change."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxnets.cache import cache_directory


def kept_at(kind: str, *identity: object) -> Path:
    """Returns where what is known of something lies, without a suffix; `identity` is what it changes with."""
    digest = hashlib.blake2b(repr(identity).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    return cache_directory() / kind / digest


def version_of_file(path: str) -> tuple[str, int, int]:
    """Returns what changes when a file does: its path, its bytes, and the nanosecond of its last change."""
    status = os.stat(path)
    return os.path.abspath(path), status.st_size, status.st_mtime_ns


def load(path: Path, names: Sequence[str]) -> dict[str, np.ndarray] | None:
    """Returns the arrays that were kept; None where there are none, or damaged ones."""
    try:
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except Exception:  # of zipfile, zlib and NumPy, on damaged bytes
        return None


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Keeps arrays; where there is no place for them, they are found out again next time."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(partial, "wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            os.replace(partial, path.with_suffix(".npz"))
        finally:
            partial.unlink(missing_ok=True)


def pack(texts: Sequence[str]) -> UInt8[np.ndarray, " bytes"]:
    """Returns texts as one array; none of them holds a zero byte."""
    return np.frombuffer("\0".join(texts).encode("utf-8", "surrogateescape"), np.uint8)


def unpack(packed: UInt8[np.ndarray, " bytes"], count: int) -> list[str]:
    return packed.tobytes().decode("utf-8", "surrogateescape").split("\0") if count else []
