"""Names of files and folders: printable, alike on every system, and hashed."""

import hashlib
import os
import unicodedata
from collections.abc import Iterable

import numpy as np
from jaxtyping import UInt64


def printable(name: str) -> str:
    r"""Returns a file's name as it can be shown and saved anywhere.

    It is composed (NFC), as a Mac stores 'é' in two code points and Linux in one; bytes that are no UTF-8, and control
    characters, become escapes: `caf\xe9`.
    """
    if name.isascii() and name.isprintable():
        return name
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    escaped = (c.encode("unicode_escape").decode() if unicodedata.category(c) == "Cc" else c for c in text)
    return unicodedata.normalize("NFC", "".join(escaped))


def composed(name: str) -> str:
    """Returns a name as NFC; a Mac stores 'é' in two code points, and a table written elsewhere has one."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def hashes(contents: Iterable[bytes]) -> UInt64[np.ndarray, " n"]:
    """Returns 64 bits of BLAKE2b of each."""
    digests = (int.from_bytes(hashlib.blake2b(x, digest_size=8).digest(), "little") for x in contents)
    return np.fromiter(digests, np.uint64)
