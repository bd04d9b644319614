"""Which runs may be brought in while a service runs: those below one folder, and nothing that leads out of it."""

import os
from pathlib import Path

from jaxnets.errors import UserError, quoted
from jaxnets.run.resolve import resolve
from jaxnets.serve.limits import Refused

_MOST = 100_000  # files of a run that are looked at


def allowed(text: str, root: Path | None) -> Path:
    """Returns the run that a stranger's text means, as a path without links.

    Args:
        text: a path, as the service would read it, or from `root`.
        root: the folder that the operator allows; None: none is.

    Raises:
        Refused: 403, if it is not below that folder, or something in it leads out; 422, if it is no run.
    """
    if root is None:
        raise Refused(
            403, "no_candidates", "no run can be brought in: start the service with --candidates DIR, above the runs"
        )
    top = root.resolve()
    path = next(filter(None, (_below(base, text, top) for base in (Path(), top))), None)
    if path is None:
        raise Refused(
            403,
            "not_a_candidate",
            f"{quoted(text)} is no folder below the one of --candidates: give a run's path in it, without links that "
            "lead out",
        )
    try:
        is_run = resolve(path.as_posix()).is_run
    except UserError:
        is_run = False
    if not is_run:
        raise Refused(
            422, "no_run", f"{quoted(text)} is no run directory (config.json and model.json are in one): train it first"
        )
    if _leads_out(path, top):
        raise Refused(403, "not_a_candidate", f"{quoted(text)} holds links that lead out of --candidates: copy it")
    return path


def _below(base: Path, text: str, top: Path) -> Path | None:
    try:
        path = (base / text).resolve()
        return path if text and path.is_dir() and path != top and path.is_relative_to(top) else None
    except (OSError, RuntimeError, ValueError):  # too long, a loop of links, a null byte
        return None


def _leads_out(path: Path, top: Path) -> bool:
    seen = 0
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            inner = Path(folder) / name
            seen += 1
            if seen > _MOST or (inner.is_symlink() and not inner.resolve().is_relative_to(top)):
                return True
    return False
