"""A run from start to end: data, model, steps, evaluation, checkpoints; it goes on where an earlier session stopped."""

import logging
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Literal

import jax
from jax.sharding import Mesh
from PIL.Image import Image

from jaxnets.chips import peak_flops
from jaxnets.config import Config, Cutter
from jaxnets.config_check import without_effect
from jaxnets.data.dataset import Dataset, open_dataset
from jaxnets.data.sources import Source
from jaxnets.errors import UserError
from jaxnets.metrics import table
from jaxnets.models.quantised.network import QUANTISED
from jaxnets.models.registry import create_model, family_of
from jaxnets.recipe.freeze import frozen_layers, summary
from jaxnets.recipe.losses.table import activation_of
from jaxnets.run.checkpoints import Progress
from jaxnets.run.checkpoints import steps as saved_steps
from jaxnets.run.directory import ModelCard, RunDirectory
from jaxnets.run.storage import Place, in_bucket
from jaxnets.schema import AUTO
from jaxnets.track.begin import senders
from jaxnets.track.destinations import destinations
from jaxnets.train.around import Around
from jaxnets.train.auto_batch import with_batch_size
from jaxnets.train.books import Books
from jaxnets.train.build import Built, build, model_fields, steps_of
from jaxnets.train.display import Display
from jaxnets.train.drawings import Drawings, NoDrawings
from jaxnets.train.evaluation import Evaluator
from jaxnets.train.feed import Draws, load_what_fits, make_feed, resides
from jaxnets.train.first_batch import first_batch
from jaxnets.train.hosts import Hosts
from jaxnets.train.judge import Judge, make_judge
from jaxnets.train.log import NoLog, RunLog
from jaxnets.train.mesh import check_batch_size, make_mesh, over_data, round_up
from jaxnets.train.meter import Meter, remedy_of
from jaxnets.train.opened import Opened
from jaxnets.train.phases import Phases
from jaxnets.train.profiler import Profiler
from jaxnets.train.saver import Checkpointer
from jaxnets.train.session import READY, Outcome, Session
from jaxnets.train.start import Start, from_images, open_start
from jaxnets.train.step import TrainState
from jaxnets.train.stop import Stop, Stopped, listening, unless
from jaxnets.train.teacher import Teacher, open_teacher
from jaxnets.train.timetable import Timetable
from jaxnets.train.watch import Watch, watching

_log = logging.getLogger(__name__)


def train(
    config: Config,
    workdir: Place,
    display: Display,
    mesh: Mesh | None = None,
    started: float | None = None,
    *,
    stop: Stop | None = None,
    tests: bool = True,
    opened: Opened | None = None,
) -> Outcome:
    """Trains into `workdir`, or goes on with the run that is there; on all devices, unless a mesh is given.

    `started` is when the session began, as `time.monotonic` counts, for config.max_hours; by default now. `stop` ends
    it in place of that. Without `tests` the test split is left alone where there is one for validation. Data that is
    `opened` already is not opened again.

    Raises:
        UserError: for whatever the user can correct; what was saved before stays.
    """
    stop, hosts, run = stop or Stop(config.max_hours, started), Hosts(), RunDirectory(workdir)
    opened = opened or Opened()

    def prepare() -> tuple[Session, TrainState, Progress] | Outcome:
        known = with_batch_size(config, run, hosts, mesh, opened, display.say)
        setup = set_up(known, run, hosts, mesh, opened=opened)
        return open_session(known, run, setup, display, around, held, tests=tests)

    around = Around(stop, hosts, Watch(stop, hosts, config.hang_minutes))
    with listening(stop, display.say), watching(around.watch, hosts), ExitStack() as held:
        try:
            prepared = unless(stop, prepare)
        except Stopped:  # before there was anything to save
            hosts.all(READY, False)
            return Outcome(max(saved_steps(run.checkpoints), default=0), stop.status, stop.signal)
        if isinstance(prepared, Outcome):
            return prepared
        session, state, progress = prepared
        return session.run(state, progress)


def open_session(
    config: Config,
    run: RunDirectory,
    setup: "Setup",
    display: Display,
    around: Around,
    held: ExitStack,
    *,
    tests: bool = True,
) -> tuple[Session, TrainState, Progress] | Outcome:
    """Returns what trains and where it starts, or the outcome of a finished run; `held` gets the run's lock.

    Without `tests` the test split is evaluated only where there is none for validation.
    """
    hosts = around.hosts
    config = setup.noted(config)
    checkpointer = _claim(run, config, setup, display, hosts, held)
    state, progress = _first_state(checkpointer, setup, config, hosts)
    ended = progress.step >= setup.steps or setup.judge.gives_up(progress)
    if ended and progress.evaluation is not None:
        checkpointer.close()
        hosts.all(READY, True)
        display.say(_finished(run.path, progress, setup))
        return Outcome(progress.step)
    # Those of the best checkpoint, which is not always the last that was evaluated.
    chosen = (progress.best or {}).get("thresholds", setup.card.thresholds)
    setup = replace(setup, card=replace(setup.card, thresholds=None if chosen is None else tuple(chosen)))
    if hosts.leads:
        run.write(config, setup.card)
    frozen, rebalance = _frozen(setup, state, progress.step), setup.built.recipe.rebalance
    quantised = bool(setup.built.fields.get(QUANTISED))
    display.describe(config, setup.data, state.params, setup.mesh, setup.steps, frozen, rebalance, quantised=quantised)
    if setup.teacher:
        display.say(f"teacher: {setup.teacher.said}")
    if setup.data.several_labels and "validation" not in setup.data.splits:
        display.say(
            "no validation split: a label will be said above a probability of one half; with "
            "--config.data.validation=0.2 each label's own threshold would be chosen"
        )
    if progress.step:
        display.say(f"resuming {run.path} at step {progress.step} of {setup.steps}")
    if not tests and "validation" in setup.data.splits:
        splits = {name: split for name, split in setup.data.splits.items() if name != "test"}
        setup = replace(setup, data=replace(setup.data, splits=splits))
    return _session(config, run, setup, progress, checkpointer, display, around), state, progress


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a config comes to: the data, the model and the steps, before anything is written."""

    mesh: Mesh
    data: Dataset
    steps: int
    start: Start | None  # the weights that training starts from
    built: Built
    phases: Phases
    judge: Judge
    card: ModelCard
    resumes: bool  # a run that is in the directory already
    cut: Cutter | None  # what cuts random crops
    teacher: Teacher | None = None

    def noted(self, config: Config) -> Config:
        """Returns the config with what was settled here, so that every session does the same."""
        weights = self.teacher.checksum if self.teacher else None
        return replace(
            config,
            data=replace(config.data, cut=self.cut),
            distill=replace(config.distill, teacher_weights=weights),
        )

    def taught(self, state: TrainState) -> TrainState:
        """Returns a state with its teacher, where there is one."""
        return replace(state, teacher=self.teacher.placed(self.mesh)) if self.teacher else state


def set_up(
    config: Config,
    run: RunDirectory,
    hosts: Hosts,
    mesh: Mesh | None = None,
    source: Source | None = None,
    opened: Opened | None = None,
) -> Setup:
    """Opens data and weights and builds the model, the quickest to be refused first.

    `source` may be open already, or the whole data set `opened`.

    Raises:
        UserError: for whatever the user can correct.
    """
    if config.batch_size == AUTO:
        raise UserError("config.batch_size auto is found where a training begins: give a number here")
    jax.config.update("jax_enable_x64", config.dtype == "float64")
    jax.config.update("jax_default_matmul_precision", config.matmul_precision)
    # What is quick to find out comes first: opening the data may mean a download.
    mesh = mesh or make_mesh()
    check_batch_size("config.batch_size", config.batch_size, mesh)
    if config.accumulate_steps > 1:
        size = config.batch_size // config.accumulate_steps
        check_batch_size("config.batch_size / config.accumulate_steps", size, mesh)
    model = create_model(config.model.name, **model_fields(config, 2))
    frozen = frozen_layers(config.freeze, family_of(model).structure(model))
    if hosts.leads:
        run.check_writable()
        destinations(config.track)
        for sentence in without_effect(config):
            _log.warning("%s", sentence)
        if frozen and config.model.pretrained is None:
            _log.warning(
                "config.freeze keeps %d layers as they are, and without config.model.pretrained they are random",
                len(frozen),
            )

    saved = run.read_model() if hosts.decide("is there a run", run.is_run) else None
    if (method := config.compress.method) in ("channels", "qat") and saved is None:
        raise UserError(
            f"config.compress.method {method} is of a network that is made of another run's before it trains: make its "
            f"run with python -m jaxnets.compress --workdir RUN --out DIR --method {method}"
        )
    start = None if saved else open_start(config)
    own, pretrained = saved.preprocess if saved else None, start.preprocess if start else None
    data = opened.open(config, own, pretrained) if opened else open_dataset(config, own, pretrained, source)
    judge = make_judge(config, data)
    cut = _cut(config, data, run.read_config().data.cut if saved else "")
    if cut == "host":
        data = data.with_host_cut()
    own_fields = saved.fields if saved else start.fields if start else None
    teacher = open_teacher(config, data.class_names, several_labels=data.several_labels)
    built = build(config, data, own_fields, over_data(mesh, axis=1), teacher)
    if (pruning := built.recipe.pruning) is not None:
        judge = replace(judge, from_step=pruning.end)
    card = ModelCard(
        name=config.model.name,
        fields=built.fields,
        class_names=data.class_names,
        preprocess=data.preprocess,
        data=data.fingerprint(),
        matmul_precision=config.matmul_precision,
        activation=(
            saved.activation if saved else activation_of(built.recipe.loss, several_labels=data.several_labels)
        ),
        several_labels=data.several_labels,
        class_weights=built.recipe.rebalance.weights if built.recipe.rebalance else None,
        thresholds=saved.thresholds if saved else None,
        temperature=saved.temperature if saved else None,
        refusal=saved.refusal if saved else None,
        fitted_on=saved.fitted_on if saved else None,
        compressed=saved.compressed if saved else None,
    )
    return Setup(
        mesh=mesh,
        data=data,
        steps=steps_of(config, data),
        start=start,
        built=built,
        phases=Phases(
            built.phases,
            mesh,
            split=config.mesh.shard_parameters,
            teacher=teacher.variables if teacher else None,
        ),
        judge=judge,
        card=card,
        resumes=saved is not None,
        cut=cut,
        teacher=teacher,
    )


def _cut(config: Config, data: Dataset, saved: Cutter | Literal[""] | None) -> Cutter | None:
    """Returns what cuts random crops: what the config says, else what the run began with, else what is quicker.

    `saved` is what an earlier session noted, None where it was of a version that knew the device alone, "" without one.
    """
    if config.augment.random_resized_crop.area is None:  # without_effect has said so
        return None
    if config.data.cut is not None:
        return config.data.cut
    if saved != "":
        if saved == "host" and config.data.placement == "device":
            raise UserError(
                "config.data.placement device cannot hold this run's images: the host cuts new ones in every epoch "
                "(config.data.cut). Set config.data.placement to stream, or begin another run with "
                "config.data.cut=device"
            )
        return saved
    training = data.training
    decoded = not (training.copied or training.in_memory or resides(config.data, training))
    return "host" if decoded and config.data.canvas_size is None else "device"


def _claim(
    run: RunDirectory, config: Config, setup: Setup, display: Display, hosts: Hosts, held: ExitStack
) -> Checkpointer:
    """Makes the directory this session's own, and returns what saves into it.

    Raises:
        UserError: if it holds another run, or another process is training in it.
    """
    if hosts.leads:
        run.create()
        held.enter_context(run.locked())
    if setup.resumes:
        for change in run.refuse_other_run(config, setup.card):
            display.say(f"changed since the last session: {change}")
    elif saved_steps(run.checkpoints):
        raise UserError(
            f"{run.path} has checkpoints but no config.json and model.json that say whose they are: put these back, "
            f"or give another --workdir"
        )
    checkpointer = Checkpointer(run.checkpoints, hosts, keep=config.keep_checkpoints)
    hosts.decide("directory", lambda: 1)
    if not in_bucket(run.path) and not run.checkpoints.is_dir():
        raise UserError(
            f"process {hosts.process} does not see {run.checkpoints}, which process 0 made: give all of them one "
            f"--workdir on a file system that they share"
        )
    return checkpointer


def _first_state(checkpointer: Checkpointer, setup: Setup, config: Config, hosts: Hosts) -> tuple[TrainState, Progress]:
    """Returns the newest checkpoint's state, or the one before the first step where there is none."""
    built, phases = setup.built, setup.phases
    found = checkpointer.first()
    restored = None if found else checkpointer.restore(lambda step: phases.like(phases.before(step)))
    if restored:
        return setup.taught(restored[0]), restored[1]
    if found is not None:
        start = Start(fields=built.fields, preprocess=None, variables=found[0])
        return fresh_state(setup, start, config.seed, hosts), found[1]
    # A run that ended before its first checkpoint starts anew.
    return fresh_state(setup, setup.start or open_start(config), config.seed, hosts), Progress(step=0)


def fresh_state(setup: Setup, start: Start | None, seed: int, hosts: Hosts) -> TrainState:
    """Returns the state before the first step: with the weights to start from, or such as the network begins with."""
    built, phases = setup.built, setup.phases
    if start is None:
        return setup.taught(from_images(phases.first(), built.model, setup.data, hosts))
    fresh, channels = phases.first_without_variables(), setup.data.preprocess.channels
    return setup.taught(start.into(fresh, built.model, channels, seed))


def _frozen(setup: Setup, state: TrainState, step: int) -> str | None:
    freezing, model = setup.built.freezing, setup.built.model
    if freezing is None:
        return None
    return summary(freezing, family_of(model).structure(model), state.params, step, setup.steps)


def _session(
    config: Config,
    run: RunDirectory,
    setup: Setup,
    progress: Progress,
    checkpointer: Checkpointer,
    display: Display,
    around: Around,
) -> Session:
    data, built, mesh, recipe = setup.data, setup.built, setup.mesh, setup.built.recipe
    eval_batch_size = round_up(config.eval_batch_size or config.batch_size, mesh)
    evaluated = data.splits.get("validation") or data.split("test")
    load_what_fits(config.data, data.training, evaluated, eval_batch_size, data.threads, mesh)
    timetable = Timetable(
        steps=setup.steps,
        batch_size=config.batch_size,
        examples=len(data.training),
        log_every=config.log_every_steps,
        eval_every=config.eval_every_steps,
        save_every=config.checkpoint_every_steps,
    )
    leads = around.hosts.leads

    def keep_thresholds(thresholds: tuple[float, ...]) -> None:
        if leads:
            run.write_model(replace(setup.card, thresholds=thresholds))

    log = RunLog(run, progress.step, evaluated=progress.evaluation is not None) if leads else None
    if log:
        devices = mesh.devices.flatten()
        hardware = f"{len(devices)} × {devices[0].device_kind}, {around.hosts.processes} processes"
        log.track(senders(run, config, log.path.parent, progress.step, hardware, display.say))
    draws = Draws(order=data.order, batch_size=config.batch_size, stop_step=setup.steps, boxes=built.boxes)
    metrics = (*table.TRAINING, *built.step_metrics)
    feed = make_feed(
        config.data, data.training, draws, setup.phases.at(progress.step).step, data.threads, mesh, around.hosts
    )
    remedy = remedy_of(config.data, data.training, data.threads)
    average = recipe.sam.average if recipe.sam else 1.0
    meter = Meter(feed, peak_flops(mesh.devices.flatten().tolist()), remedy, config.accumulate_steps, average)
    return Session(
        timetable=timetable,
        phases=setup.phases,
        splits=data.splits,
        feed=feed,
        evaluator=Evaluator(built.eval_step, eval_batch_size, data.threads, mesh, around),
        checkpointer=checkpointer,
        books=Books(
            timetable, log or NoLog(), display, recipe.schedule, metrics, progress.window, meter, recipe.momentum
        ),
        profiler=Profiler(config.profile_steps, log.tensorboard if log else None, progress.step),
        display=display,
        around=around,
        judge=setup.judge,
        keep_thresholds=keep_thresholds,
        drawings=_drawings(config, setup, progress, log),
    )


def _drawings(config: Config, setup: Setup, progress: Progress, log: RunLog | None) -> NoDrawings:
    """Returns what draws the run: nothing on the processes that keep no log, nor where it is not wanted."""
    if log is None or not config.drawings:
        return NoDrawings()
    data, recipe = setup.data, setup.phases.at(0).recipe
    if progress.step or recipe is None:
        return Drawings(log, None)

    def sheet() -> Image:
        found = first_batch(
            recipe,
            data.training,
            data.order,
            setup.built.boxes,
            classes=len(data.class_names),
            batch_size=config.batch_size,
            seed=config.seed,
        )
        return found.sheet(data.class_names)

    return Drawings(log, sheet)


def _finished(workdir: Place, progress: Progress, setup: Setup) -> str:
    text = f"{workdir} is finished: {progress.step} of {setup.steps} steps are done"
    if progress.evaluation:
        e = progress.evaluation
        text += f", {e['split']} accuracy {e['accuracy']:.2%}"
    if said := setup.judge.said(progress):
        text += f"; {said}"
    raised = ["--config.epochs (or --config.steps)"] if progress.step >= setup.steps else []
    if setup.judge.gives_up(progress):
        raised.append("--config.patience")
    return f"{text}. To go on with it, raise {' and '.join(raised)}."
