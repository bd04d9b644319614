"""How fast steps go."""

import time

_DISPATCH_SECONDS = 0.25  # that one dispatch should last: short enough to follow and to interrupt


class Pace:
    """The duration of a step, and how many of them make a dispatch of the right length."""

    def __init__(self, max_steps: int) -> None:
        self._max_steps = max_steps
        self._last: float | None = None
        self.seconds: float | None = None  # per step, averaged over the last few dispatches; None: not known yet

    def finished(self, count: int) -> float | None:
        """Returns how many seconds the dispatch that ended now has taken; None where that is not known."""
        now, last = time.perf_counter(), self._last
        self._last = now
        if last is None:
            return None
        seconds = (now - last) / count
        self.seconds = seconds if self.seconds is None else 0.8 * self.seconds + 0.2 * seconds
        return now - last

    def interrupted(self) -> None:
        """The time until the next dispatch ends will not be all training."""
        self._last = None

    @property
    def count(self) -> int:
        if self.seconds is None:
            return 1
        return max(1, min(self._max_steps, int(_DISPATCH_SECONDS / self.seconds)))
