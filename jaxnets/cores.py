"""How many cores there are to use."""

import math
import os
from pathlib import Path

# What a container is allowed of the cores' time, in µs of each period: by version 2 of Linux's control groups, and 1.
_LIMIT = Path("/sys/fs/cgroup/cpu.max")
_QUOTA, _PERIOD = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def cores() -> int:
    """Returns how many cores this process may use: those it is bound to, or its container's share, rounded up."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min(bound, _allowed()))


def _allowed() -> float:
    """Returns how many cores' time a container may take; infinite where nothing limits it."""
    try:
        quota, period = _LIMIT.read_text().split() if _LIMIT.exists() else (_QUOTA.read_text(), _PERIOD.read_text())
        share = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no limit ("max"), or none of Linux's files
        return math.inf
    return share if share > 0 else math.inf  # version 1 says −1 where there is none
