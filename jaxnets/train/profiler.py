"""A profile of some steps, for TensorBoard's profile tab or xprof."""

from pathlib import Path

import jax

_AFTER = 10  # steps, when everything is compiled and warm


class Profiler:
    """Records `steps` steps into `directory`, none if that is 0 or there is no directory."""

    def __init__(self, steps: int, directory: Path | None, started: int) -> None:
        first = started + _AFTER
        self.boundaries = (
            (first, first + steps) if steps and directory else ()
        )  # steps at which `at` wants nothing under way
        self._directory, self._running = directory, False

    def at(self, step: int) -> None:
        if step in self.boundaries and not self._running:
            jax.profiler.start_trace(str(self._directory))
            self._running = True
        elif step in self.boundaries:
            self.close()

    def close(self) -> None:
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
