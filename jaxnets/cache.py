"""The user's cache directory, and the compiled programs that are kept there."""

import functools
import logging
import os
import stat
import tempfile
from pathlib import Path

_log = logging.getLogger(__name__)


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache, unless JAX's own settings say otherwise."""
    import jax

    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "compiled"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def cache_directory() -> Path:
    """Returns the user's cache directory for jaxnets, or a temporary one where that cannot be written to."""
    path, reason = choose_directory()
    return path if reason is None else _temporary(path, reason)


def choose_directory() -> tuple[Path, str | None]:
    """Returns the cache directory, and why it is a temporary one if it is; makes nothing.

    A container's user may have no home, or one that is read-only.
    """
    temporary = Path(tempfile.gettempdir()) / f"jaxnets-{os.getuid()}"
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the specification says to ignore others
        try:
            base = str(Path.home() / ".cache")
        except RuntimeError:  # no HOME, and a user that the machine does not know
            return temporary, "there is no home directory"
    wanted = Path(base) / "jaxnets"
    return (wanted, None) if _writable(wanted) else (temporary, f"{wanted} cannot be written to")


def _writable(path: Path) -> bool:
    """Says whether the directory is, or could be made, one to write in; makes nothing."""
    # os.path.exists and not Path.exists, which raises where a folder on the way may not be entered.
    nearest = next((parent for parent in (path, *path.parents) if os.path.exists(parent)), None)
    return nearest is not None and nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


@functools.cache  # one word, and one directory, for each process
def _temporary(path: Path, reason: str) -> Path:
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        # Compiled programs are run: a directory that others may write to is not used.
        private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    except OSError:
        private = False
    if not private:
        path = Path(tempfile.mkdtemp(prefix="jaxnets-"))
    _log.info("%s: what is kept between runs goes to %s (XDG_CACHE_HOME may name another directory)", reason, path)
    return path
