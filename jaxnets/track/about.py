"""What a run is, as trackers show it: its config, versions, hardware, and the commit where there is one."""

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from jaxnets.config import Config
from jaxnets.run.directory import RunDirectory
from jaxnets.run.storage import absolute, in_bucket
from jaxnets.schema import flatten, written
from jaxnets.track.ledger import Ledger
from jaxnets.track.tracker import About

_PACKAGES = ("jaxnets", "jax", "jaxlib", "flax", "optax")
_GIT_SECONDS = 5.0


def about(run: RunDirectory, config: Config, ledger: Ledger, key: str) -> About:
    """Returns what is told of a run; `key` is the one that it has at a place."""
    folder = absolute(run.path)
    return About(
        name=config.track.name or folder.name,
        key=key,
        folder=None if in_bucket(run.path) else str(folder),
        params={name: without_password(written(value)) for name, value in flatten(config).items()},
        tags={**ledger.tags, "workdir": str(folder)},
    )


def session_tags(hardware: str) -> dict[str, str]:
    """Returns what only the session that trains can say; `hardware` is what it computes on."""
    tags = {"hardware": hardware, "host": platform.node(), "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            tags[package] = version(package)
        except PackageNotFoundError:  # its files alone are there
            continue
    return {**tags, **_git()}


def _git() -> dict[str, str]:
    """Returns the commit of the directory that the command was given in, and whether it had changes."""
    if not any((folder / ".git").exists() for folder in (Path.cwd(), *Path.cwd().parents)):
        return {}
    quiet = {"capture_output": True, "text": True, "timeout": _GIT_SECONDS, "env": {**os.environ, "LC_ALL": "C"}}
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **quiet, check=True).stdout.strip()  # type: ignore[call-overload]
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], **quiet).returncode == 1  # type: ignore[call-overload]
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"git.commit": commit, "git.changes": "yes" if changed else "no"}


def without_password(text: str) -> str:
    """Returns a text with *** for the password of an address in it."""
    return re.sub(r"(\w://[^/@:\s]*):[^/@\s]*@", r"\1:***@", text)
