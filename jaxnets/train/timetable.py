"""When a run evaluates, saves and logs: functions of the step alone, so that sessions and hosts agree."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

_FEWEST_STEPS = 25  # between two evaluations where the config does not say when; a tiny set has many epochs in a step


@dataclass(frozen=True, kw_only=True)
class Timetable:
    steps: int  # of the whole run
    batch_size: int
    examples: int  # of the train split
    log_every: int
    eval_every: int | None  # None: at the end of an epoch, 25 steps after the last one at the earliest
    save_every: int | None  # None: after each evaluation

    def epoch(self, step: int) -> float:
        """Returns how often every training example was seen after so many steps."""
        return step * self.batch_size / self.examples

    def evaluates(self, step: int) -> bool:
        return step >= self.steps or (step > 0 and step == self._next_evaluation(step - 1))

    def saves(self, step: int) -> bool:
        every = self.save_every
        return step == self.steps or (step % every == 0 if every else self.evaluates(step))

    def logs(self, step: int) -> bool:
        return step == self.steps or step % self.log_every == 0

    def next_stop(self, step: int, others: Iterable[int] = ()) -> int:
        """Returns the first step after `step` where something is due, or one of the `others`."""
        ends = [(step // n + 1) * n for n in (self.log_every, self.save_every) if n]
        return min(*ends, self._next_evaluation(step), self.steps, *(other for other in others if other > step))

    def _next_evaluation(self, step: int) -> int:
        if self.eval_every is not None:
            return (step // self.eval_every + 1) * self.eval_every
        whole_epochs = max(1, math.ceil(_FEWEST_STEPS * self.batch_size / self.examples))
        stretch = whole_epochs * self.examples  # examples from one evaluation to the next
        return -(-(step * self.batch_size // stretch + 1) * stretch // self.batch_size)
