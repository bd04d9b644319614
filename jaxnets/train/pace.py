"""What the loop keeps count of between two rows of metrics.jsonl and between two dispatches."""

import time
from typing import Any

_DISPATCH_SECONDS = 0.25  # that one dispatch should take: short enough to follow and to interrupt


class Window:
    """Sums over the steps since the last training row; saved with a checkpoint, so that rows survive a resume."""

    def __init__(self, saved: dict[str, Any]) -> None:
        self.steps = int(saved.get("steps", 0))
        self.loss = float(saved.get("loss", 0.0))
        self.correct = int(saved.get("correct", 0))

    def add(self, loss: float, correct: int) -> None:
        self.steps += 1
        self.loss += loss
        self.correct += correct

    def saved(self) -> dict[str, Any]:
        return {"steps": self.steps, "loss": self.loss, "correct": self.correct}


class Pace:
    """How fast steps go, and how many of them make a dispatch of the right length."""

    def __init__(self, max_steps: int) -> None:
        self._max_steps = max_steps
        self._last: float | None = None
        self.seconds: float | None = None  # per step, averaged over the last few dispatches

    def finished(self, count: int) -> None:
        now = time.perf_counter()
        if self._last is not None:
            seconds = (now - self._last) / count
            self.seconds = seconds if self.seconds is None else 0.8 * self.seconds + 0.2 * seconds
        self._last = now

    def interrupted(self) -> None:
        """The time until the next dispatch ends will not be all training."""
        self._last = None

    @property
    def count(self) -> int:
        if self.seconds is None:
            return 1
        return max(1, min(self._max_steps, int(_DISPATCH_SECONDS / self.seconds)))
