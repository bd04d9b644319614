"""The fine-tune of one command: decide, solve the head on cached features, train on where that pays, report."""

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxnets.cache import cache_directory
from jaxnets.config import Config
from jaxnets.data.examples import Examples
from jaxnets.data.sources import open_source
from jaxnets.engine.backbone import Backbone
from jaxnets.errors import UserError
from jaxnets.finetune.decide import decide, training_after, with_defaults
from jaxnets.finetune.features import Features, features_of
from jaxnets.finetune.head import PATHS, Data, Fitted, Judge, default_solver, fit_head
from jaxnets.finetune.linear import Linear
from jaxnets.finetune.memo import Memo, read_memo
from jaxnets.finetune.report import opening, result_lines
from jaxnets.metrics.thresholds import choose_thresholds
from jaxnets.models.registry import family_of
from jaxnets.pretrained.convert import adapt
from jaxnets.run.checkpoints import Progress, choose, read_variables, steps
from jaxnets.run.directory import RunDirectory
from jaxnets.run.storage import Place
from jaxnets.schema import flatten
from jaxnets.track.begin import catch_up
from jaxnets.train.display import Display
from jaxnets.train.hosts import Hosts
from jaxnets.train.log import RunLog
from jaxnets.train.loop import Setup, set_up
from jaxnets.train.loop import train as run_training
from jaxnets.train.saver import Checkpointer
from jaxnets.train.session import Outcome
from jaxnets.train.start import open_start
from jaxnets.train.step import TrainState
from jaxnets.train.stop import Stop, Stopped, listening

_log = logging.getLogger(__name__)

# Of what follows the head alone: it may still be changed as long as only the head is there.
_AFTER_THE_HEAD = (
    *("augment.", "mix.", "optimizer.", "schedule.", "freeze.", "batch_norm.", "loss.label_smoothing", "batch_size"),
    *("ema.", "finetune.method", "finetune.last_stages", "model.dropout", "model.stochastic_depth"),
)


def finetune(
    config: Config, workdir: Place, display: Display, mesh: Mesh | None = None, started: float | None = None
) -> Outcome:
    """Fine-tunes into `workdir`, or goes on with what is there; `started` is as for `train`.

    Raises:
        UserError: for whatever the user can correct; what was saved before stays.
    """
    started = time.monotonic() if started is None else started
    stop, run = Stop(_hours(config), started), RunDirectory(workdir)
    try:
        with listening(stop, display.say):
            tune = Tune.open(config, run, display, stop, mesh, started)
            tune.solve_head()
            after = tune.follow()
            if tune.memo.result is not None:
                display.say(f"{run.path} is finished")
                display.say(result_lines(run.path, tune.memo.result))
                return Outcome(tune.memo.result["step"])
    except Stopped:
        display.say("the features so far are kept: the same command goes on from there")
        return Outcome(0, stop.status, stop.signal)
    outcome = Outcome(0)
    if after is not None:
        outcome = run_training(after, workdir, display, mesh, stop=Stop(_hours(config), started), tests=False)
        if not outcome.finished and not (outcome.signal is None and tune.by_minutes):
            return outcome
    stop = Stop(config.max_hours, started)
    try:
        with listening(stop, display.say):
            tune.finish()
            catch_up(run, tune.config)
    except Stopped:
        return Outcome(outcome.step, stop.status, stop.signal)
    return Outcome(outcome.step)


def _hours(config: Config) -> float | None:
    given = [hours for hours in (config.max_hours, (config.finetune.minutes or 0) / 60 or None) if hours]
    return min(given, default=None)


@dataclass
class Tune:
    """A fine-tune under way."""

    asked: Config
    config: Config  # with what was decided
    run: RunDirectory
    setup: Setup
    memo: Memo
    display: Display
    stop: Stop
    mesh: Mesh | None
    started: float
    seconds_per_image: float | None = None

    @classmethod
    def open(
        cls, asked: Config, run: RunDirectory, display: Display, stop: Stop, mesh: Mesh | None, started: float
    ) -> "Tune":
        hosts = Hosts()
        if hosts.several:
            raise UserError(
                "config.finetune.method solves the head in one process, and here are several: leave it out (None) to "
                "train on all of them"
            )
        memo = read_memo(run)
        if memo is None and (run.is_run() or steps(run.checkpoints)):
            raise UserError(
                f"{run.path} holds a run that config.finetune.method did not begin: give another --workdir, or take "
                f"that run's weights with --config.model.pretrained={run.path}"
            )
        source = open_source(asked.data, asked.seed)
        if len(source.class_names) < 2:
            raise UserError(
                f"{source.description} has one class, {', '.join(source.class_names)}, and there is nothing to tell it "
                f"from: give images of at least two, each in a folder of its own"
            )
        config, said = with_defaults(asked, source)
        setup = set_up(config, run, hosts, mesh, source)
        config = setup.noted(config)
        if memo is not None and run.is_run():
            for change in run.refuse_other_run(asked, setup.card, memo.asked, _free(memo)):
                display.say(f"changed since the last session: {change}")
            memo = replace(memo, asked=asked)
        opening(display, config, setup.data, said)
        return cls(asked, config, run, setup, memo or Memo(asked=asked), display, stop, mesh, started)

    @property
    def by_minutes(self) -> bool:
        """Whether it is config.finetune.minutes that ends it, and not the session's time."""
        minutes, hours = self.asked.finetune.minutes, self.asked.max_hours
        return minutes is not None and (hours is None or minutes < 60 * hours)

    def solve_head(self) -> None:
        """Finds the head and saves it as the checkpoint of step 0, unless it is there."""
        run, setup, config = self.run, self.setup, self.config
        with ExitStack() as held:
            run.create()
            held.enter_context(run.locked())
            if steps(run.checkpoints):
                return
            checkpointer = Checkpointer(run.checkpoints)
            start = setup.start or open_start(config)
            assert start is not None
            variables = adapt(start.variables, setup.built.model, setup.data.preprocess.channels, config.seed)
            backbone = self._backbone(variables)
            train = self._features(backbone, "train", config.finetune.views)
            validation = self._features(backbone, "validation", 1)
            began = time.monotonic()
            fitted = self._fit(train, validation)
            head = family_of(setup.built.model).structure(setup.built.model).head
            variables["params"][head] = _layer(fitted.linear, variables["params"][head])
            self._save(checkpointer, variables, fitted, validation)
            figures = fitted.figures or {}
            self.memo = replace(
                self.memo,
                head={
                    "solver": fitted.solver,
                    "regularisation": fitted.regularisation,
                    "seconds": round(time.monotonic() - began, 2),
                    "seconds_per_image": self.seconds_per_image,
                    "validation": {name: figures[name] for name in figures if name != "split"},
                },
            )
            self.memo.write(run)

    def _backbone(self, variables: Any) -> Backbone:
        card = self.setup.card
        return Backbone(card.name, self.setup.built.model, variables, card.preprocess, card.matmul_precision)

    def _examples(self, name: str) -> Examples:
        data = self.setup.data
        return Examples(*data.selections[name], data.preprocess, skip_corrupt=self.config.data.skip_corrupt)

    def _features(self, backbone: Backbone, name: str, views: int, *, keep: bool = True) -> Data:
        """Returns the features of a split, its views one after the other, without what cannot be read."""
        examples = self._examples(name)
        began, computed = time.monotonic(), 0
        with self.display.counting(f"features of {name}") as advance:

            def count(done: int, total: int) -> None:
                nonlocal computed
                computed = done
                advance(done, total)

            found: Features = features_of(
                backbone,
                examples,
                views,
                root=cache_directory() / "features" if keep else None,
                source=self.config.data.source,
                name=name,
                threads=self.setup.data.threads,
                say=self.display.say,
                advance=count,
                stopping=lambda: bool(self.stop),
            )
        seconds = time.monotonic() - began
        if computed:
            self.seconds_per_image = seconds / computed
        total, engine = len(examples) * views, f" by {backbone.embedder.name}" if computed else ""
        speed = f", {computed / seconds:,.0f}/s{engine}" if computed else ""
        self.display.say(f"features of {name}: {total:,}, of which {total - computed:,} were kept{speed}")
        if not found.readable.any():
            raise UserError(f"none of the {name} images of {self.config.data.source} can be read")
        vectors, labels = found.vectors[found.readable], examples.labels[found.readable]
        weights = None
        if name == "train" and (each := self._weights(labels, found.readable)) is not None:
            weights = np.repeat(each, views)
        return Data(vectors.reshape(-1, vectors.shape[-1]), np.repeat(labels, views, 0), weights)

    def _weights(self, labels: np.ndarray, readable: np.ndarray) -> np.ndarray | None:
        """Returns how much each training image counts, by config.data.balance and config.loss.class_weights."""
        times, rebalance = self.setup.data.order.times[readable], self.setup.built.recipe.rebalance
        weights = np.asarray(times, np.float64)
        if rebalance is not None and rebalance.weights is not None:
            if labels.ndim == 2:
                self.display.say(
                    "config.loss.class_weights is of the training after the head: where an image may have several "
                    "labels, the head is solved without"
                )
            else:
                weights = weights * np.asarray(rebalance.weights)[labels]
        return None if (weights == weights[0]).all() else weights

    def _fit(self, train: Data, validation: Data) -> Fitted:
        spec, card, rebalance = self.config.finetune, self.setup.card, self.setup.built.recipe.rebalance
        solver = spec.solver or default_solver(train.labels[:: spec.views])
        fitted = fit_head(
            train,
            validation,
            classes=len(card.class_names),
            activation=self.setup.built.recipe.loss.activation,
            judge=self._judge(),
            figure=self.config.best,
            shift=None if rebalance is None or rebalance.shift is None else np.asarray(rebalance.shift),
            solver=solver,
            path=PATHS[solver] if spec.regularisation is None else (spec.regularisation,),
            stopping=self._check,
        )
        chosen = "chosen on validation" if spec.regularisation is None else "as asked"
        self.display.say(f"head: {fitted.solver}, regularisation {fitted.regularisation:.3g} ({chosen})")
        return fitted

    def _check(self) -> None:
        if self.stop:
            raise Stopped

    def _judge(self) -> Judge:
        return Judge(self.setup.built.recipe.loss, len(self.setup.card.class_names))

    def _save(self, checkpointer: Checkpointer, variables: Any, fitted: Fitted, validation: Data) -> None:
        """Writes the run directory: config.json, model.json, the checkpoint of step 0 and its row of metrics."""
        run = self.run
        Memo(asked=self.asked).write(run)
        evaluation = {"split": "validation", **(fitted.figures or {})}
        progress = self.setup.judge.judged(Progress(step=0, evaluation=evaluation), 0, evaluation)
        if self.setup.data.several_labels:
            sums = self._judge().sums(fitted.linear(validation.features), validation.labels)
            thresholds = choose_thresholds(sums)
            progress = replace(progress, best={**(progress.best or {}), "thresholds": thresholds})
            self.setup = replace(self.setup, card=replace(self.setup.card, thresholds=thresholds))
        run.write(self.config, self.setup.card)
        log = RunLog(run, 0, evaluated=False)
        log.write(0, 0.0, {f"eval/{name}": value for name, value in evaluation.items()})
        log.close()
        state = TrainState(
            step=jnp.zeros((), jnp.int32),
            params=jax.device_put(variables["params"]),
            batch_stats=jax.device_put(variables.get("batch_stats", {})),
            opt_state={},
            ema=None,
        )
        checkpointer.save(state, progress)
        checkpointer.close()

    def follow(self) -> Config | None:
        """Returns the training that follows the head, decided once; None where nothing does."""
        if self.memo.after is not None:
            return self.memo.after
        left = None
        if (hours := _hours(self.asked)) is not None:
            left = max(3600 * hours - (time.monotonic() - self.started), 0.0)
        images = len(self.setup.data.training)
        per_image = self.seconds_per_image or self.memo.head.get("seconds_per_image")
        after = decide(self.config, images=images, seconds_left=left, seconds_per_image=per_image)
        if after.method is None:
            if after.why:
                self.display.say(f"nothing follows the head: {after.why}")
            return None
        length = f"{self.config.steps:,} steps" if self.config.steps else f"{after.epochs:.1f} epochs"
        self.display.say(f"training {after.what} for {length} at most, from the head on")
        structure = family_of(self.setup.built.model).structure(self.setup.built.model)
        config = training_after(self.config, after, structure, images)
        self.memo = replace(self.memo, after=config, result=None)
        self.memo.write(self.run)
        self.run.write(config, self.setup.card)
        return config

    def finish(self) -> None:
        """Measures the best checkpoint on test, once, and says what came of it all."""
        run, setup = self.run, self.setup
        step = choose(run.checkpoints, "best")
        variables = read_variables(run.checkpoints, step, "ema")
        backbone = self._backbone(variables)
        test = self._features(backbone, "test", 1, keep=step == 0)
        layer = variables["params"][family_of(setup.built.model).structure(setup.built.model).head]
        linear = _linear(layer, setup.built.model.single_output)
        figures = self._judge()(linear(test.features), test.labels)
        log = RunLog(run, max(steps(run.checkpoints)), evaluated=True)
        log.write(step, 0.0, {"test/split": "test", **{f"test/{name}": value for name, value in figures.items()}})
        log.close()
        result = {"step": step, "validation": _best_of(run, step), "test": figures}
        self.memo = replace(self.memo, result=result)
        self.memo.write(run)
        self.display.say(result_lines(run.path, result))


def _free(memo: Memo) -> frozenset[str]:
    """Returns the keys that may differ from those of the session before, beside RESUMABLE."""
    if memo.after is not None:
        return frozenset()
    return frozenset(key for key in flatten(memo.asked) if key.startswith(_AFTER_THE_HEAD))


def _layer(linear: Linear, like: Any) -> dict[str, np.ndarray]:
    """Returns the parameters of a network's head; one output is the second class's logit less the first's."""
    kernel, bias = linear
    if like["kernel"].shape[1] < kernel.shape[1]:
        kernel, bias = np.diff(kernel), np.diff(bias)
    return {"kernel": kernel.astype(like["kernel"].dtype), "bias": bias.astype(like["bias"].dtype)}


def _linear(layer: Any, single_output: bool) -> Linear:
    kernel, bias = (np.asarray(layer[name], np.float64) for name in ("kernel", "bias"))
    if single_output:
        kernel, bias = np.pad(kernel, ((0, 0), (1, 0))), np.pad(bias, (1, 0))
    return Linear(kernel, bias)


def _best_of(run: RunDirectory, step: int) -> dict[str, Any]:
    from jaxnets.run.checkpoints import read_progress

    newest = max(steps(run.checkpoints))
    best = read_progress(run.checkpoints, newest).best or read_progress(run.checkpoints, step).best or {}
    return {name: value for name, value in best.items() if name != "step"}
