"""How many cores there are to use."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

_SHARE = "JAXNETS_CORES"  # of a process whose neighbours use the rest

# What a container is allowed of the cores' time, in µs of each period: by version 2 of Linux's control groups, and 1.
_LIMIT = Path("/sys/fs/cgroup/cpu.max")
_QUOTA, _PERIOD = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def cores() -> int:
    """Returns how many cores this process may use.

    They are those that it is bound to, at most its container's share, rounded up, and at most its own (`share_of`).
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = math.ceil(min(bound, _allowed()))
    share = os.environ.get(_SHARE, "")
    return min(found, max(int(share), 1)) if share.isdecimal() else found


def share_of(number: int, count: int) -> Mapping[str, str]:
    """Returns the environment in which process `number` of `count`, from 0 on, has its share of the cores.

    It is one at least, and nothing is bound to it: while a process has nothing to do, another runs on its cores.
    """
    each, rest = divmod(cores(), count)
    share = str(max(each + (number < rest), 1))
    return {_SHARE: share, "NPROC": share}  # XLA reads the latter for its pools of threads on a CPU


def _allowed() -> float:
    """Returns how many cores' time a container may take; infinite where nothing limits it."""
    try:
        quota, period = _LIMIT.read_text().split() if _LIMIT.exists() else (_QUOTA.read_text(), _PERIOD.read_text())
        share = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no limit ("max"), or none of Linux's files
        return math.inf
    return share if share > 0 else math.inf  # version 1 says −1 where there is none
