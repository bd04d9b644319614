"""One stretch of training, from the step where it starts to the end or to where it is asked to stop."""

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from jaxnets.data.examples import Examples
from jaxnets.errors import Diverged, UserError
from jaxnets.metrics import table
from jaxnets.metrics.metric import Sums, figures_of
from jaxnets.metrics.thresholds import choose_thresholds
from jaxnets.models.family import Variables
from jaxnets.run.checkpoints import Progress
from jaxnets.train.around import Around
from jaxnets.train.books import Books
from jaxnets.train.display import Display
from jaxnets.train.drawings import NoDrawings
from jaxnets.train.evaluation import Evaluator
from jaxnets.train.feed import Feed
from jaxnets.train.judge import Judge
from jaxnets.train.pace import Pace
from jaxnets.train.phases import Phase, Phases
from jaxnets.train.profiler import Profiler
from jaxnets.train.saver import Checkpointer
from jaxnets.train.step import TrainState
from jaxnets.train.stop import Stopped, unless
from jaxnets.train.timetable import Timetable

READY = "ready"  # to start: what all hosts must be
_UNDER_WAY = 2  # dispatches, so that the device never waits for the host


@dataclass(frozen=True)
class Outcome:
    """How a session of a run ended."""

    step: int
    status: int = 0  # for the shell: 0 where the run is finished, else why it stopped, as Stop.status
    signal: int | None = None  # that asked it to stop

    @property
    def finished(self) -> bool:
        return self.status == 0


@dataclass(kw_only=True)
class Session:
    timetable: Timetable
    phases: Phases
    splits: Mapping[str, Examples]  # validation where there is one, which then chooses the best, and test
    feed: Feed
    evaluator: Evaluator
    checkpointer: Checkpointer
    books: Books
    profiler: Profiler
    display: Display
    around: Around
    judge: Judge
    keep_thresholds: Callable[[tuple[float, ...]], None]  # of the best so far, where images may have several labels
    drawings: NoDrawings = field(default_factory=NoDrawings)

    def run(self, state: TrainState, progress: Progress) -> Outcome:
        self.saved = progress.step
        self.progress = progress
        self.over = False  # before its last step, for want of a better evaluation
        self.evaluated: tuple[int, dict[str, Any]] | None = None  # the last step that was, and what was found
        with ExitStack() as at_end:
            at_end.push(self._close_log)
            at_end.callback(self._close_drawings)
            at_end.callback(self.display.stop)
            at_end.callback(self.profiler.close)
            try:
                step = self._steps(state, progress.step)
                self.checkpointer.close()
            except BaseException:
                # What was being saved is written to its end; a second error would only hide the first.
                with suppress(UserError):
                    self.checkpointer.close()
                raise
        stop = self.around.stop
        if not self._finished:
            return Outcome(step, stop.status, stop.signal)
        if said := self.judge.said(self.progress):
            self.display.say(f"finished at step {step} of {self.timetable.steps}: {said}")
        if said := self.judge.said_of_average(self.progress.evaluation or {}):
            self.display.say(said)
        return Outcome(step)

    def _steps(self, state: TrainState, step: int) -> int:
        """Trains from `step` to the end, or to where it is asked to stop; returns the step that was reached."""
        _, hosts, watch = self.around
        under_way = deque[tuple[int, int, list[Sums]]]()
        self.display.start(step, self.timetable.steps)
        phase = self.phases.at(step)
        if not self._compile(phase, READY):
            return step
        if step and self.progress.evaluation is None and self.timetable.evaluates(step):
            self._evaluate(state, step)  # the last session was stopped before it could, or was to go on further
            self._save(state, step)
        while step < self.timetable.steps and not self.over:
            count = hosts.decide(f"step {step}", partial(self._count, step))
            if not count:
                break
            if phase is not self.phases.at(step):
                self._drain(under_way)
                phase = self.phases.at(step)
                self.display.say(f"step {step}/{self.timetable.steps}  {phase.change} from here: compiling …")
                if not self._compile(phase, f"phase {step}"):
                    break
            try:
                # Saved or not, the state after a phase's last step is that phase's until the next one has begun.
                state, done = self.feed.advance(self.phases.enter(state, step), step, count)
            except UserError:
                if not hosts.several:
                    self._drain(under_way)
                    self._save(state, step)
                raise
            self.drawings.begin()
            watch.progress()
            under_way.append((step, count, done))
            step += count
            if len(under_way) >= _UNDER_WAY:
                self._account(*under_way.popleft())
            if self.timetable.evaluates(step) or self.timetable.saves(step) or step in self.profiler.boundaries:
                self._drain(under_way)
                self._pause(state, step)
        self._drain(under_way)
        self._save(state, step)
        return step

    def _compile(self, phase: Phase, name: str) -> bool:
        """Compiles a phase's step; returns whether all hosts could before the run was asked to stop."""
        stop, hosts, watch = self.around
        compiled = False
        self.feed.follow(phase.step)
        with suppress(Stopped):
            unless(stop, lambda: self.feed.compile(self.phases.like(phase)))
            compiled = True
        if not hosts.all(name, compiled):
            return False
        watch.progress()
        self.pace = Pace(self.feed.max_steps)  # its steps take another time
        return True

    def _count(self, step: int) -> int:
        """Returns how many steps to do at once from `step`, none where the run should stop."""
        if self.around.stop:
            return 0
        others = (*self.profiler.boundaries, *self.phases.starts)
        return min(self.pace.count, self.timetable.next_stop(step, others) - step)

    def _pause(self, state: TrainState, step: int) -> None:
        """Evaluates, saves and profiles, whichever is due; nothing is under way."""
        is_best = False
        if self.timetable.evaluates(step):
            try:
                is_best = self._evaluate(state, step)
            except UserError:  # an image that cannot be read, for instance: no reason to lose the steps
                if not self.around.hosts.several:
                    self._save(state, step)
                raise
        if self.timetable.saves(step) or is_best:
            self._save(state, step)
        if self.timetable.evaluates(step):
            self.drawings.evaluated(step, self._best_step)
        self.profiler.at(step)
        self.pace.interrupted()

    @property
    def _best_step(self) -> int | None:
        return (self.progress.best or {}).get("step")

    @property
    def _finished(self) -> bool:
        return (self.over or self.progress.step >= self.timetable.steps) and self.progress.evaluation is not None

    def _close_log(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.books.log.close("finished" if self._finished else "stopped")
        else:
            self.books.log.close("failed", (str(error).splitlines() or [type(error).__name__])[0])

    def _close_drawings(self) -> None:
        self.drawings.close(self.progress.step, self._best_step)

    def _evaluate(self, state: TrainState, step: int) -> bool:
        """Evaluates and keeps what was found, unless it is stopped; returns whether it is the best so far."""
        chooses = "validation" in self.splits
        split = "validation" if chooses else "test"
        evaluation = self._figures(state.chosen, step, "eval", split)
        # What an average gains, or costs, shows beside the weights that it is of.
        raw = ({}, {}) if state.ema is None else self._figures(state.variables, step, "raw", split)
        if evaluation is None or raw is None:
            return False
        found, total = evaluation
        found |= {f"raw_{name}": raw[0][name] for name in self.judge.compared(found) if raw[0]}
        progress = self.judge.judged(self.progress, step, found) if chooses else self.progress
        over = self.judge.gives_up(progress)
        ends = chooses and "test" in self.splits and (over or step >= self.timetable.steps)
        test = self._figures(state.chosen, step, "test", "test") if ends else ({}, {})
        if test is None:
            return False
        self.books.row(step, {f"eval/{key}": value for key, value in found.items()})
        if ends:
            self.books.row(step, {f"test/{key}": value for key, value in test[0].items()})
        is_best = progress.best != self.progress.best
        self.progress, self.over = progress, over
        if is_best:
            self._choose_thresholds(total)
        self.evaluated = step, {**found, **{f"test_{key}": value for key, value in test[0].items()}}
        return is_best

    def _figures(
        self, variables: Variables, step: int, name: str, split: str
    ) -> tuple[dict[str, Any], Mapping[str, np.ndarray]] | None:
        """Returns what an evaluation of a split finds, and the sums that it follows from; None if it is stopped."""
        total = self.evaluator(variables, self.splits[split], f"evaluation {step} {name}")
        return None if total is None else ({"split": split, **figures_of(table.EVALUATION, total)}, total)

    def _choose_thresholds(self, total: Mapping[str, np.ndarray]) -> None:
        """Chooses the thresholds of several labels by an evaluation of the validation split that is the best so far."""
        if not self.splits["validation"].several_labels:
            return
        thresholds = choose_thresholds(total)
        self.progress = replace(self.progress, best={**(self.progress.best or {}), "thresholds": thresholds})
        # Before the checkpoint: a session that ends in between evaluates again in the next, and finds the same.
        self.keep_thresholds(thresholds)

    def _save(self, state: TrainState, step: int) -> None:
        evaluation = self.evaluated[1] if self.evaluated and self.evaluated[0] == step else None
        if step == self.saved:
            if evaluation and self.progress.evaluation is None:
                self.progress = replace(self.progress, evaluation=evaluation)
                self.checkpointer.amend(self.progress)
                self.books.log.publish(step)
            return
        window = dict(self.books.window.sums)
        self.progress = replace(self.progress, step=step, evaluation=evaluation, window=window)
        self.books.log.publish(step)  # a resume finds the rows up to its checkpoint
        self.checkpointer.save(state, self.progress)
        self.saved = step
        self.around.stop.expect_save(self.checkpointer.slowest)
        self.around.watch.progress()

    def _drain(self, under_way: deque[tuple[int, int, list[Sums]]]) -> None:
        while under_way:
            self._account(*under_way.popleft())
            self.around.watch.progress()

    def _account(self, start: int, count: int, done: list[Sums]) -> None:
        """Waits for steps that were started, and writes them down."""
        arrays = {
            name: np.concatenate([np.atleast_1d(np.asarray(each[name])) for each in done])[:count] for name in done[0]
        }
        sums = [{name: values[i].item() for name, values in arrays.items()} for i in range(count)]
        self.books.meter.add(count, self.pace.finished(count))
        finite = np.isfinite(arrays["loss"])
        if not finite.all():
            first, kept = int(np.argmin(finite)), self.checkpointer.newest()
            raise Diverged(
                f"the loss of step {start + first + 1} is {sums[first]['loss']}: lower config.optimizer.learning_rate, "
                f"or set config.optimizer.clip_norm, and run the same command with it; "
                + (f"the checkpoint of step {kept} is kept" if kept else "nothing was saved yet")
            )
        speed = self.timetable.batch_size / self.pace.seconds if self.pace.seconds else None
        self.books.steps(start, sums, speed)
