"""A profile of some steps, for TensorBoard's profile tab or xprof."""

from pathlib import Path

import jax

_AFTER = 10  # steps, when everything is compiled and warm


class Profiler:
    """Records `steps` steps into `directory`; none if that is 0."""

    def __init__(self, steps: int, directory: Path, started: int) -> None:
        self._first, self._last = started + _AFTER, started + _AFTER + steps
        self._directory, self._wanted, self._running = directory, steps > 0, False

    def at(self, step: int) -> None:
        if self._wanted and not self._running and step >= self._first:
            jax.profiler.start_trace(str(self._directory))
            self._running, self._wanted = True, False
        elif self._running and step >= self._last:
            self.close()

    def close(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
