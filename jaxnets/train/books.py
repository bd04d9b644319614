"""What a session writes down of its steps and evaluations, on disk and on the screen."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxnets.metrics.metric import Metric, figures_of
from jaxnets.recipe.schedule.table import Schedule
from jaxnets.train.display import Display
from jaxnets.train.log import NoLog
from jaxnets.train.meter import Meter
from jaxnets.train.timetable import Timetable


class Window:
    """Sums over the steps since the last training row; saved with a checkpoint, so that rows survive a resume."""

    def __init__(self, saved: Mapping[str, float] | None = None) -> None:
        self.sums: dict[str, Any] = dict(saved or {})

    def add(self, sums: Mapping[str, Any]) -> None:
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0) + value


class Books:
    """Keeps the rows of metrics.jsonl; `metrics` are those of training, `meter` what the session adds times to."""

    def __init__(
        self,
        timetable: Timetable,
        log: NoLog,
        display: Display,
        schedule: Schedule,
        metrics: Sequence[Metric],
        window: Mapping[str, float],
        meter: Meter,
        momentum: Schedule | None = None,
    ) -> None:
        self._timetable, self._schedule, self._momentum, self._metrics = timetable, schedule, momentum, metrics
        self._display, self.log, self.meter = display, log, meter
        # A window that an earlier version saved has other sums, and the steps it stands for are left out of a row.
        self.window = Window(window if "count" in window else None)

    def steps(self, start: int, sums: Sequence[Mapping[str, Any]], images_per_second: float | None) -> None:
        """Takes down steps that are done, the first of them `start` + 1."""
        for each in sums:
            self.window.add(each)
        step, together = start + len(sums), Window()
        for each in sums:
            together.add(each)
        figures = figures_of(self._metrics, {name: np.asarray(value) for name, value in together.sums.items()})
        self._display.update(step, figures["loss"], figures["accuracy"], images_per_second)
        if self._timetable.logs(step):
            total = {name: np.asarray(value) for name, value in self.window.sums.items()}
            row = {f"train/{name}": value for name, value in figures_of(self._metrics, total).items()}
            row["train/learning_rate"] = float(self._schedule(step - 1))
            if self._momentum is not None:
                row["train/momentum"] = float(self._momentum(step - 1))
            speed = None if images_per_second is None else round(images_per_second, 1)
            self.window = Window()
            times = self.meter.figures()
            row |= {f"train/{name}": value for name, value in {"images_per_second": speed, **times}.items()}
            self.row(step, row)
            if advice := self.meter.advice(times["data_wait"]):
                self._display.say(advice)

    def row(self, step: int, values: Mapping[str, Any]) -> None:
        epoch = self._timetable.epoch(step)
        self.log.write(step, epoch, values)
        self._display.row(step, self._timetable.steps, epoch, values)
