"""How many cores there are to use."""

import os


def cores() -> int:
    """Returns how many cores this process may use: those it is bound to, where the system says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
