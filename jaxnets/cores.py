"""How many cores there are to use."""

import os
from collections.abc import Mapping

_SHARE = "JAXNETS_CORES"  # of a process whose neighbours use the rest


def cores() -> int:
    """Returns how many cores this process may use: those it is bound to, where the system says so, or its share."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = os.environ.get(_SHARE, "")
    return min(found, max(int(share), 1)) if share.isdecimal() else found


def share_of(number: int, count: int) -> Mapping[str, str]:
    """Returns the environment in which process `number` of `count`, from 0 on, has its share of the cores.

    It is one at least, and nothing is bound to it: while a process has nothing to do, another runs on its cores.
    """
    each, rest = divmod(cores(), count)
    share = str(max(each + (number < rest), 1))
    return {_SHARE: share, "NPROC": share}  # XLA reads the latter for its pools of threads on a CPU
