"""A run from start to end: data, model, steps, evaluation, checkpoints; it goes on where an earlier session stopped."""

import math
from collections import deque
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxnets import metrics
from jaxnets.config import Config
from jaxnets.data.dataset import Dataset, open_dataset
from jaxnets.errors import UserError
from jaxnets.models.registry import create_model
from jaxnets.run.checkpoints import Progress
from jaxnets.run.checkpoints import steps as saved_steps
from jaxnets.run.directory import ModelCard, RunDirectory
from jaxnets.run.storage import Place, in_bucket
from jaxnets.train.build import Built, build, model_fields
from jaxnets.train.display import Display
from jaxnets.train.evaluation import Evaluator
from jaxnets.train.feed import Feed, load_what_fits, make_feed
from jaxnets.train.hosts import Hosts
from jaxnets.train.log import NoLog, RunLog
from jaxnets.train.mesh import check_batch_size, make_mesh, over_data, state_shardings
from jaxnets.train.optimizer import Schedule, total_steps
from jaxnets.train.pace import Pace, Window
from jaxnets.train.profiler import Profiler
from jaxnets.train.saver import Checkpointer
from jaxnets.train.start import Start, open_start
from jaxnets.train.step import StepMetrics, TrainState
from jaxnets.train.stop import Stop, Stopped, listening, unless
from jaxnets.train.watch import Watch, watching

_READY = "ready"
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


def train(
    config: Config, workdir: Place, display: Display, mesh: Mesh | None = None, started: float | None = None
) -> Outcome:
    """Trains into `workdir`, or goes on with the run that is there; on all devices, unless a mesh is given.

    `started` is when the session began, as `time.monotonic` counts, for config.max_hours; by default now.

    Raises:
        UserError: for whatever the user can correct; what was saved before stays.
    """
    stop, hosts, run = Stop(config.max_hours, started), Hosts(), RunDirectory(workdir)
    watch = Watch(stop, hosts, config.hang_minutes)
    with listening(stop, display.say), watching(watch, hosts), ExitStack() as held:
        try:
            prepared = unless(stop, lambda: _prepare(config, run, display, mesh, held, stop, hosts, watch))
        except Stopped:  # before there was anything to save
            hosts.all(_READY, False)
            return Outcome(max(saved_steps(run.checkpoints), default=0), stop.status, stop.signal)
        if isinstance(prepared, Outcome):
            return prepared
        session, state, progress = prepared
        return session.run(state, progress)


def _prepare(
    config: Config,
    run: RunDirectory,
    display: Display,
    mesh: Mesh | None,
    held: ExitStack,
    stop: Stop,
    hosts: Hosts,
    watch: Watch,
) -> "tuple[_Session, TrainState, Progress] | Outcome":
    """Returns what trains and where it starts, or the outcome of a finished run; `held` takes the run's lock."""
    jax.config.update("jax_enable_x64", config.dtype == "float64")
    jax.config.update("jax_default_matmul_precision", config.matmul_precision)
    # What is quick to find out comes first: opening the data may mean a download.
    mesh = mesh or make_mesh()
    check_batch_size("config.batch_size", config.batch_size, mesh)
    if config.accumulate_steps > 1:
        part = config.batch_size // config.accumulate_steps
        check_batch_size("config.batch_size / config.accumulate_steps", part, mesh)
    create_model(config.model.name, **model_fields(config, 2))
    if hosts.leads:
        run.check_writable()

    saved = run.read_model() if hosts.decide("is there a run", run.is_run) else None
    start = None if saved else open_start(config)
    data = open_dataset(config, saved.preprocess if saved else None, start.preprocess if start else None)
    steps = total_steps(config, len(data.split("train")))
    own_fields = saved.fields if saved else start.fields if start else None
    built = build(config, data, steps, own_fields, over_data(mesh, axis=1))
    card = ModelCard(
        name=config.model.name,
        fields=built.fields,
        class_names=data.class_names,
        preprocess=data.preprocess,
        data=data.fingerprint(),
        matmul_precision=config.matmul_precision,
    )
    if hosts.leads:
        run.create()
        held.enter_context(run.locked())
    if saved:
        for change in run.refuse_other_run(config, card):
            display.say(f"changed since the last session: {change}")
    elif saved_steps(run.checkpoints):
        raise UserError(
            f"{run.path} has checkpoints but no config.json and model.json that say whose they are: put these back, "
            f"or give another --workdir"
        )
    checkpointer = Checkpointer(run.checkpoints, hosts)
    hosts.decide("directory", lambda: 1)
    if not in_bucket(run.path) and not run.checkpoints.is_dir():
        raise UserError(
            f"process {hosts.process} does not see {run.checkpoints}, which process 0 made: give all of them one "
            f"--workdir on a file system that they share"
        )
    state, progress = _first_state(checkpointer, built, mesh, config, data, start)
    if progress.step >= steps and progress.evaluation is not None:
        checkpointer.close()
        hosts.all(_READY, True)
        display.say(_finished(run.path, progress, steps))
        return Outcome(progress.step)
    if hosts.leads:
        run.write(config, card)
    _describe(display, config, data, state, mesh, steps)
    if progress.step:
        display.say(f"resuming {run.path} at step {progress.step} of {steps}")
    load_what_fits(config, data, mesh)
    log = RunLog(run, progress.step, evaluated=progress.evaluation is not None) if hosts.leads else None
    session = _Session(
        config=config,
        data=data,
        steps=steps,
        schedule=built.schedule,
        feed=make_feed(config, data, built.step, mesh, steps, hosts),
        evaluator=Evaluator(config, built.model, data, mesh, hosts, watch),
        checkpointer=checkpointer,
        log=log or NoLog(),
        profiler=Profiler(config.profile_steps, log.tensorboard if log else None, progress.step),
        display=display,
        stop=stop,
        hosts=hosts,
        watch=watch,
    )
    return session, state, progress


def _first_state(
    checkpointer: Checkpointer, built: Built, mesh: Mesh, config: Config, data: Dataset, start: Start | None
) -> tuple[TrainState, Progress]:
    """Returns the newest checkpoint's state, or the one before the first step where there is none."""
    shapes = jax.eval_shape(built.fresh_state)
    places = state_shardings(shapes, mesh, split=config.mesh.shard_parameters)
    restored = checkpointer.restore(
        jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, places)
    )
    if restored:
        return restored
    # Run once, so quick to compile matters more than quick to run.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
    state = jax.jit(built.fresh_state, out_shardings=places, compiler_options=options)()
    start = start or open_start(config)  # a run that ended before its first checkpoint starts anew
    if start:
        state = start.into(state, built.model, data.preprocess.channels, config.seed)
    return state, Progress(step=0)


@dataclass(kw_only=True)
class _Session:
    """One stretch of training, from the step where it starts to the end or to where it is asked to stop."""

    config: Config
    data: Dataset
    steps: int
    schedule: Schedule
    feed: Feed
    evaluator: Evaluator
    checkpointer: Checkpointer
    log: NoLog
    profiler: Profiler
    display: Display
    stop: Stop
    hosts: Hosts
    watch: Watch

    def run(self, state: TrainState, progress: Progress) -> Outcome:
        self.saved = progress.step
        self.progress = progress
        self.window = Window(progress.window)
        self.evaluated: tuple[int, dict[str, Any]] | None = None  # the last step that was, and what was found
        self.pace = Pace(self.feed.max_steps)
        with ExitStack() as at_end:
            at_end.callback(self.log.close)
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
        finished = step >= self.steps and self.progress.evaluation is not None
        return Outcome(step) if finished else Outcome(step, self.stop.status, self.stop.signal)

    def _steps(self, state: TrainState, step: int) -> int:
        """Trains from `step` to the end, or to where it is asked to stop; returns the step that was reached."""
        under_way = deque[tuple[int, int, list[StepMetrics]]]()
        self.display.start(step, self.steps)
        compiled = False
        with suppress(Stopped):
            unless(self.stop, lambda: self.feed.compile(state))
            compiled = True
        if not self.hosts.all(_READY, compiled):
            return step
        self.watch.progress()
        if step and self.progress.evaluation is None and self._evaluates(step):
            self._evaluate(state, step)  # the last session was stopped before it could, or was to go on further
            self._save(state, step)
        while step < self.steps:
            count = self.hosts.decide(f"step {step}", partial(self._count, step))
            if not count:
                break
            try:
                state, done = self.feed.advance(state, step, count)
            except UserError:
                if not self.hosts.several:
                    self._drain(under_way)
                    self._save(state, step)
                raise
            self.watch.progress()
            under_way.append((step, count, done))
            step += count
            if len(under_way) >= _UNDER_WAY:
                self._account(*under_way.popleft())
            if self._evaluates(step) or self._saves(step) or step in self.profiler.boundaries:
                self._drain(under_way)
                self._pause(state, step)
        self._drain(under_way)
        self._save(state, step)
        return step

    def _count(self, step: int) -> int:
        """Returns how many steps to take at once from `step`, none where the run should stop."""
        return 0 if self.stop else min(self.pace.count, self._next_boundary(step) - step)

    def _next_boundary(self, step: int) -> int:
        every = [self.config.log_every_steps, self.config.checkpoint_every_steps, self.config.eval_every_steps]
        ends = [(step // n + 1) * n for n in every if n]
        if self.config.eval_every_steps is None:
            ends.append(self._epoch_end(step))
        ends += [boundary for boundary in self.profiler.boundaries if boundary > step]
        return min(*ends, self.steps)

    def _epoch_end(self, step: int) -> int:
        """Returns the first step after `step` at which another epoch is complete."""
        batch, examples = self.config.batch_size, len(self.data.split("train"))
        epochs = step * batch // examples + 1
        return -(-epochs * examples // batch)

    def _evaluates(self, step: int) -> bool:
        every = self.config.eval_every_steps
        return step >= self.steps or (step % every == 0 if every else step == self._epoch_end(step - 1))

    def _saves(self, step: int) -> bool:
        every = self.config.checkpoint_every_steps
        return step == self.steps or (step % every == 0 if every else self._evaluates(step))

    def _pause(self, state: TrainState, step: int) -> None:
        """Evaluates, saves and profiles, whichever is due; nothing is under way."""
        is_best = False
        if self._evaluates(step):
            try:
                is_best = self._evaluate(state, step)
            except UserError:  # an image that cannot be read, for instance: no reason to lose the steps
                if not self.hosts.several:
                    self._save(state, step)
                raise
        if self._saves(step) or is_best:
            self._save(state, step)
        self.profiler.at(step)
        self.pace.interrupted()

    def _evaluate(self, state: TrainState, step: int) -> bool:
        """Evaluates and keeps what was found, unless it is stopped; returns whether it is the best so far."""
        chooses = "validation" in self.data.splits
        rows = {"eval": "validation" if chooses else "test"}
        if chooses and step >= self.steps:
            rows["test"] = "test"
        found = {}
        for name, split in rows.items():
            total = self.evaluator(state, split, self.stop, f"evaluation {step} {name}")
            if total is None:
                return False
            found[name] = {"split": split, **metrics.summarise(total)}
        for name, values in found.items():
            self._write(step, {f"{name}/{key}": value for key, value in values.items()})
        evaluation = found["eval"]
        best = self.progress.best
        is_best = chooses and (best is None or evaluation["accuracy"] > best["accuracy"])
        if is_best:
            self.progress = replace(self.progress, best={"step": step, "accuracy": evaluation["accuracy"]})
        self.evaluated = step, {**evaluation, **{f"test_{key}": value for key, value in found.get("test", {}).items()}}
        return is_best

    def _save(self, state: TrainState, step: int) -> None:
        evaluation = self.evaluated[1] if self.evaluated and self.evaluated[0] == step else None
        if step == self.saved:
            if evaluation and self.progress.evaluation is None:
                self.progress = replace(self.progress, evaluation=evaluation)
                self.checkpointer.amend(self.progress)
            return
        self.progress = replace(self.progress, step=step, evaluation=evaluation, window=self.window.saved())
        self.log.publish()  # a resume finds the rows up to its checkpoint
        self.checkpointer.save(state, self.progress)
        self.saved = step
        self.stop.took(self.checkpointer.slowest)
        self.watch.progress()

    def _drain(self, under_way: deque[tuple[int, int, list[StepMetrics]]]) -> None:
        while under_way:
            self._account(*under_way.popleft())
            self.watch.progress()

    def _account(self, start: int, count: int, done: list[StepMetrics]) -> None:
        """Waits for steps that were started, and logs them."""
        losses = np.concatenate([np.atleast_1d(np.asarray(part.loss)) for part in done])[:count].astype(np.float64)
        corrects = np.concatenate([np.atleast_1d(np.asarray(part.correct)) for part in done])[:count]
        self.pace.finished(count)
        batch = self.config.batch_size
        finite = np.isfinite(losses)
        if not finite.all():
            first, kept = int(np.argmin(finite)), self.checkpointer.newest()
            raise UserError(
                f"the loss of step {start + first + 1} is {losses[first]}: lower config.optimizer.learning_rate, or "
                f"set config.optimizer.clip_norm, and run the same command with it; "
                + (f"the checkpoint of step {kept} is kept" if kept else "nothing was saved yet")
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
    for note in data.notes:
        display.say(note)
    devices = mesh.devices.flatten()
    display.say(f"devices: {len(devices)} × {devices[0].device_kind}; {steps} steps of {config.batch_size} examples")


def _finished(workdir: Place, progress: Progress, steps: int) -> str:
    text = f"{workdir} is finished: {progress.step} of {steps} steps are done"
    if progress.evaluation:
        e = progress.evaluation
        text += f", {e['split']} accuracy {e['accuracy']:.2%}"
    return text + ". To go on with it, raise --config.epochs (or --config.steps)."
