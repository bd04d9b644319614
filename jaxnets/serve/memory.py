"""What glibc keeps for itself, and how it gives it back; other C libraries are left alone."""

import contextlib
import ctypes
from typing import Any

_ARENA_MAX = -8  # mallopt's M_ARENA_MAX


def few_arenas() -> None:
    """Keeps glibc from an arena a thread, whose free memory the others cannot use; to be called before any thread."""
    with contextlib.suppress(OSError, AttributeError):
        _glibc().mallopt(_ARENA_MAX, 2)


def give_back() -> None:
    """Returns to the system what was freed: after a compiler, some hundred MiB."""
    with contextlib.suppress(OSError, AttributeError):
        _glibc().malloc_trim(0)


def _glibc() -> Any:
    return ctypes.CDLL("libc.so.6")
