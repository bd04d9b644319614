"""What machine a benchmark runs on."""

import platform
from pathlib import Path

from jaxnets.cores import cores


def machine() -> str:
    """Returns the processor's name and the cores that this process may use."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {cores()} cores"
