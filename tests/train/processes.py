"""Runs of several processes on this machine, as on several hosts."""

import socket
import subprocess
import sys
from pathlib import Path

from tests.conftest import environment
from tests.train.runs import SMALL


def start(workdir: Path, *options: str, processes: int = 2, devices: int = 4) -> list[subprocess.Popen]:
    """Starts `jaxnets.main` on the digits in so many processes of so many CPU devices each."""
    digits = ("--config", "digits", f"--config.model.name={SMALL}", "--workdir", workdir)
    return start_all(
        "jaxnets.main", *digits, *options, prefix="--config.distributed.", processes=processes, devices=devices
    )


def start_all(
    module: str, *arguments: object, prefix: str, processes: int = 2, devices: int = 4
) -> list[subprocess.Popen]:
    """Starts a command in several processes, which learn of each other by options that begin with `prefix`."""
    together = (f"{prefix}coordinator=localhost:{free_port()}", f"{prefix}processes={processes}")
    own = [(*together, f"{prefix}process={process}") if processes > 1 else () for process in range(processes)]
    return [popen("-m", module, *map(str, arguments), *each, devices=devices) for each in own]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def popen(*arguments: str, devices: int = 1) -> subprocess.Popen:
    """Starts Python; what it prints is kept, errors and all."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment(devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(started: list[subprocess.Popen], seconds: float = 500) -> list[tuple[int, str]]:
    """Returns each process's exit status and what it said."""
    said = [process.communicate(timeout=seconds)[0] for process in started]
    return [(process.returncode, text) for process, text in zip(started, said, strict=True)]
