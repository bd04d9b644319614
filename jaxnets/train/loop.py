"""A run from start to end: data, model, steps, evaluation, checkpoints; it goes on where an earlier session stopped."""

import math
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxnets import metrics
from jaxnets.config import Config
from jaxnets.data.dataset import Dataset, open_dataset
from jaxnets.errors import UserError
from jaxnets.rundir import ModelCard, RunDirectory
from jaxnets.train.build import build
from jaxnets.train.checkpoint import Checkpointer, Progress
from jaxnets.train.display import Display
from jaxnets.train.evaluation import Evaluator
from jaxnets.train.feed import Feed, load_what_fits, make_feed
from jaxnets.train.log import RunLog
from jaxnets.train.mesh import check_batch_size, make_mesh, replicated
from jaxnets.train.optimizer import Schedule, total_steps
from jaxnets.train.pace import Pace, Window
from jaxnets.train.profiler import Profiler
from jaxnets.train.signals import listen_for_signals
from jaxnets.train.step import StepMetrics, TrainState

_UNDER_WAY = 2  # dispatches, so that the device never waits for the host


@dataclass(frozen=True)
class Outcome:
    """How a session of a run ended."""

    step: int
    finished: bool
    signal: int | None = None  # that asked it to stop


def train(config: Config, workdir: Path, display: Display, mesh: Mesh | None = None) -> Outcome:
    """Trains into `workdir`, or goes on with the run that is there; on all devices, unless a mesh is given.

    Raises:
        UserError: for whatever the user can correct; what was saved before stays.
    """
    jax.config.update("jax_enable_x64", config.dtype == "float64")
    jax.config.update("jax_default_matmul_precision", config.matmul_precision)
    mesh = mesh or make_mesh()
    check_batch_size("config.batch_size", config.batch_size, mesh)

    run = RunDirectory(workdir)
    exists = run.is_run()
    data = open_dataset(config, run.read_model().preprocess if exists else None)
    steps = total_steps(config, len(data.split("train")))
    built = build(config, data, steps)
    card = ModelCard(
        name=config.model.name,
        fields=built.fields,
        class_names=data.class_names,
        preprocess=data.preprocess,
        data=data.fingerprint(),
    )
    run.create()
    if exists:
        run.refuse_other_run(config, card)
    run.write(config, card)

    everywhere = replicated(mesh)
    shapes = jax.eval_shape(built.fresh_state)
    checkpointer = Checkpointer(run.checkpoints)
    restored = checkpointer.restore(
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), shapes)
    )
    if restored:
        state, progress = restored
        if progress.step >= steps:
            checkpointer.close()
            display.say(_finished(workdir, progress, steps))
            return Outcome(progress.step, finished=True)
        display.say(f"resuming {workdir} at step {progress.step} of {steps}")
    else:
        # Run once, so quick to compile matters more than quick to run.
        options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
        init = jax.jit(built.fresh_state, out_shardings=everywhere, compiler_options=options)
        state, progress = init(), Progress(step=0)

    _describe(display, config, data, state, mesh, steps)
    load_what_fits(config, data)
    session = _Session(
        config=config,
        data=data,
        mesh=mesh,
        steps=steps,
        schedule=built.schedule,
        feed=make_feed(config, data, built.step, mesh, steps),
        evaluator=Evaluator(config, built.model, data, mesh),
        checkpointer=checkpointer,
        log=RunLog(run, progress.step),
        display=display,
    )
    return session.run(state, progress, run)


@dataclass(kw_only=True)
class _Session:
    config: Config
    data: Dataset
    mesh: Mesh
    steps: int
    schedule: Schedule
    feed: Feed
    evaluator: Evaluator
    checkpointer: Checkpointer
    log: RunLog
    display: Display

    def run(self, state: TrainState, progress: Progress, run: RunDirectory) -> Outcome:
        self.started = self.saved = progress.step
        self.progress = progress
        self.window = Window(progress.window)
        self.pace = Pace(self.feed.max_steps)
        step, under_way = progress.step, deque[tuple[int, int, list[StepMetrics]]]()
        profiler = Profiler(self.config.profile_steps, run.tensorboard, progress.step)
        try:
            with listen_for_signals() as received:
                self.display.start(step, self.steps)
                while step < self.steps and not received:
                    count = min(self.pace.count, self._next_boundary(step) - step)
                    state, done = self.feed.advance(state, step, count)
                    under_way.append((step, count, done))
                    step += count
                    if len(under_way) >= _UNDER_WAY:
                        self._account(*under_way.popleft())
                    if self._pauses(step):
                        self._drain(under_way)
                        self._pause(state, step)
                    profiler.at(step)
                self._drain(under_way)
                if step != self.saved:
                    self._save(state, step, None)
            self.checkpointer.close()
            self.log.close()
        except BaseException:
            # What was saved before is written to its end; a second error would only hide the first.
            with suppress(UserError):
                self.checkpointer.close()
            raise
        finally:
            profiler.close()
            self.display.stop()
        return Outcome(step, finished=step >= self.steps, signal=received[0] if received else None)

    def _next_boundary(self, step: int) -> int:
        every = [self.config.log_every_steps, self.config.checkpoint_every_steps, self.config.eval_every_steps]
        ends = [(step // n + 1) * n for n in every if n]
        if self.config.eval_every_steps is None:
            ends.append(self._epoch_end(step))
        return min(*ends, self.steps)

    def _epoch_end(self, step: int) -> int:
        """Returns the first step after `step` at which another epoch is complete."""
        batch, examples = self.config.batch_size, len(self.data.split("train"))
        epochs = step * batch // examples + 1
        return -(-epochs * examples // batch)

    def _evaluates(self, step: int) -> bool:
        every = self.config.eval_every_steps
        return step == self.steps or (step % every == 0 if every else step == self._epoch_end(step - 1))

    def _saves(self, step: int) -> bool:
        every = self.config.checkpoint_every_steps
        return step == self.steps or (step % every == 0 if every else self._evaluates(step))

    def _pauses(self, step: int) -> bool:
        return self._evaluates(step) or self._saves(step)

    def _pause(self, state: TrainState, step: int) -> None:
        """Evaluates and saves, whichever is due."""
        evaluation, is_best = None, False
        if self._evaluates(step):
            evaluation, is_best = self._evaluate(state, step)
        if self._saves(step) or is_best:
            self._save(state, step, evaluation)
        self.pace.interrupted()

    def _evaluate(self, state: TrainState, step: int) -> tuple[dict[str, Any], bool]:
        chooses = "validation" in self.data.splits
        split = "validation" if chooses else "test"
        evaluation = {"split": split, **metrics.summarise(self.evaluator(state, split))}
        self._write(step, {f"eval/{key}": value for key, value in evaluation.items()})
        best = self.progress.best
        is_best = chooses and (best is None or evaluation["accuracy"] > best["accuracy"])
        if is_best:
            best = {"step": step, "accuracy": evaluation["accuracy"]}
            self.progress = replace(self.progress, best=best)
        if chooses and step == self.steps:
            test = metrics.summarise(self.evaluator(state, "test"))
            self._write(step, {f"test/{key}": value for key, value in test.items()})
            evaluation |= {f"test_{key}": value for key, value in test.items()}
        return evaluation, is_best

    def _save(self, state: TrainState, step: int, evaluation: dict[str, Any] | None) -> None:
        self.progress = replace(self.progress, step=step, evaluation=evaluation, window=self.window.saved())
        self.checkpointer.save(state, self.progress)
        self.saved = step

    def _drain(self, under_way: deque[tuple[int, int, list[StepMetrics]]]) -> None:
        while under_way:
            self._account(*under_way.popleft())

    def _account(self, start: int, count: int, done: list[StepMetrics]) -> None:
        """Waits for steps that were started, and logs them."""
        losses = np.concatenate([np.atleast_1d(np.asarray(part.loss)) for part in done])[:count].astype(np.float64)
        corrects = np.concatenate([np.atleast_1d(np.asarray(part.correct)) for part in done])[:count]
        self.pace.finished(count)
        batch = self.config.batch_size
        finite = np.isfinite(losses)
        if not finite.all():
            first = int(np.argmin(finite))
            raise UserError(
                f"the loss of step {start + first + 1} is {losses[first]}: lower config.optimizer.learning_rate, or "
                f"set config.optimizer.clip_norm; "
                + (f"the checkpoint of step {self.saved} is kept" if self.saved else "nothing was saved yet")
            )
        for loss, correct in zip(losses, corrects, strict=True):
            self.window.add(float(loss), int(correct))
        step = start + count
        speed = batch / self.pace.seconds if self.pace.seconds else math.nan
        seen = count * batch
        self.display.update(step, float(losses.sum()) / seen, int(corrects.sum()) / seen, speed)
        if step % self.config.log_every_steps == 0 or step == self.steps:
            seen = self.window.steps * batch
            row = {
                "train/loss": self.window.loss / seen,
                "train/accuracy": self.window.correct / seen,
                "train/learning_rate": float(self.schedule(step - 1)),
                "train/images_per_second": None if math.isnan(speed) else round(speed, 1),
            }
            self.window = Window({})
            self._write(step, row)

    def _write(self, step: int, values: dict[str, Any]) -> None:
        epoch = step * self.config.batch_size / len(self.data.split("train"))
        self.log.write(step, epoch, values)
        self.display.row(step, self.steps, epoch, values)


def _describe(display: Display, config: Config, data: Dataset, state: TrainState, mesh: Mesh, steps: int) -> None:
    from clu import parameter_overview  # 0.1 s, and only for this table

    display.say(parameter_overview.get_parameter_overview(state.variables["params"], include_stats=False))
    p = data.preprocess
    sizes = ", ".join(f"{len(examples):,} {name}" for name, examples in data.splits.items())
    display.say(
        f"data: {config.data.source}, {sizes}, {p.height}×{p.width}×{p.channels}, {len(data.class_names)} classes"
    )
    devices = mesh.devices.flatten()
    display.say(f"devices: {len(devices)} × {devices[0].device_kind}; {steps} steps of {config.batch_size} examples")


def _finished(workdir: Path, progress: Progress, steps: int) -> str:
    text = f"{workdir} is finished: {progress.step} of {steps} steps are done"
    if progress.evaluation:
        e = progress.evaluation
        text += f", {e['split']} accuracy {e['accuracy']:.2%}"
    return text + ". To go on with it, raise --config.epochs (or --config.steps)."
