"""Writes to a bucket as a checkpoint is written.

A child does it, `python -m jaxnets.doctor.remote gs://BUCKET/run`: where the network is wrong it may wait for ever.
It prints one JSON object.
"""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress

from jaxnets.doctor.machine import Directory
from jaxnets.run.storage import open_place

_WRITTEN = 16 * 2**20  # bytes


def measure_remote(path: str, seconds: float = 60.0) -> Directory:
    """Returns what came of writing to `path`, after at most so many seconds."""
    kind = path.partition("://")[0]
    command = [sys.executable, "-m", "jaxnets.doctor.remote", path]
    speed, error = None, None
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds)
    except subprocess.TimeoutExpired:
        error = f"nothing came back within {seconds:.0f} s"
    except OSError as failure:
        error = str(failure)
    else:
        lines = done.stdout.strip().splitlines()
        if done.returncode == 0 and lines:
            speed = json.loads(lines[-1])["bytes_per_second"]
        else:
            error = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1][:300]
    return Directory(path=path, measured_in=path, file_system=kind, error=error, bytes_per_second=speed)


def main() -> None:
    """The child."""
    file = open_place(sys.argv[1]) / f".jaxnets-doctor-{os.getpid()}"
    content = os.urandom(_WRITTEN)
    try:
        start = time.perf_counter()
        file.write_bytes(content)
        seconds = time.perf_counter() - start
    finally:
        with suppress(Exception):  # whatever a storage library raises; the first error is the one to tell
            file.unlink()
    print(json.dumps({"bytes_per_second": _WRITTEN / seconds}))


if __name__ == "__main__":
    main()
