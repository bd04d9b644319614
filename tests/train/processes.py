"""Runs of several processes on this machine, as on several hosts."""

import socket
import subprocess
import sys
from pathlib import Path

from tests.conftest import environment


def start(workdir: Path, *options: str, processes: int = 2, devices: int = 4) -> list[subprocess.Popen]:
    """Starts `jaxnets.main` on the digits in so many processes of so many CPU devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    together = (f"--config.distributed.coordinator=localhost:{port}", f"--config.distributed.processes={processes}")
    if processes == 1:
        together = ()
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "jaxnets.main", "--config", "digits", "--workdir", str(workdir), *options),
                *together,
                *([f"--config.distributed.process={process}"] if together else []),
            ],
            env=environment(devices),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(processes)
    ]


def finish(started: list[subprocess.Popen], seconds: float = 500) -> list[tuple[int, str]]:
    """Returns each process's exit status and what it said."""
    said = [process.communicate(timeout=seconds)[0] for process in started]
    return [(process.returncode, text) for process, text in zip(started, said, strict=True)]
