"""Cuts channels out of a run's network, and writes what is left as the first checkpoint of another run."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxnets.compress.choose import choose
from jaxnets.compress.coupled import couple, widths_of
from jaxnets.compress.importance import importance, make_gates
from jaxnets.config import Config
from jaxnets.data.batch import Batch
from jaxnets.data.pipeline import train_stream
from jaxnets.errors import UserError
from jaxnets.metrics import table
from jaxnets.metrics.metric import figures_of
from jaxnets.metrics.thresholds import choose_thresholds
from jaxnets.models.describe import size
from jaxnets.models.family import Variables
from jaxnets.models.registry import FAMILIES, field_names
from jaxnets.recipe.compress import CompressConfig
from jaxnets.run.checkpoints import Progress
from jaxnets.run.directory import RunDirectory
from jaxnets.soup.statistics import make_statistics, with_statistics
from jaxnets.train.build import build
from jaxnets.train.display import Display
from jaxnets.train.evaluation import evaluate_split, jit_eval_step
from jaxnets.train.hosts import Hosts
from jaxnets.train.log import RunLog
from jaxnets.train.loop import Setup, set_up
from jaxnets.train.mesh import make_mesh, put, replicated, round_up, shard_rows
from jaxnets.train.saver import Checkpointer
from jaxnets.train.step import TrainState

_BATCHES = 32  # of training images, an epoch at most, that importance and statistics are taken of


def check_family(name: str) -> None:
    """Refuses a model whose family has no networks of other widths.

    Raises:
        UserError: that names those that have.
    """
    if "layer_widths" in field_names(name):
        return
    able = [family.network.__name__ for family in FAMILIES if "layer_widths" in field_names(next(iter(family.entries)))]
    raise UserError(
        f"channels can be cut out of {' and '.join(able)}, and {name} is neither: prune single weights "
        f"(--method magnitude), or train a smaller model of its family"
    )


def cut(config: Config, run: RunDirectory, display: Display) -> None:
    """Writes config.json, model.json and the checkpoint of step 0 of a run that a training then goes on with.

    The channels go that matter least for what they cost (`importance`, `choose`). What is left computes what the whole
    network would with zeros in their place; the statistics of its norms are then taken anew.

    Raises:
        UserError: if the network's channels cannot be cut so far, or the data cannot be read.
    """
    check_family(config.model.name)
    # As if nothing were to be made smaller: the whole network, from the weights that the config names.
    setup = set_up(replace(config, compress=CompressConfig()), run, Hosts())
    assert setup.start is not None, "a run is what config.model.pretrained names"
    data, seen = setup.data, setup.data.preprocess
    whole: Any = setup.built.model
    fresh = setup.phases.first_without_variables()
    state = setup.start.into(fresh, whole, seen.channels, config.seed)
    variables: Variables = jax.tree.map(np.asarray, jax.device_get(state.variables))
    work = _Work(config, setup)

    coupling = couple(whole, variables, seen.height, seen.width, seen.channels)
    choose(coupling, np.ones(coupling.count), config.compress.keep)  # what is out of reach is refused at once
    gates = jax.jit(make_gates(whole, seen, setup.built.recipe, seed=config.seed))
    matters = importance(coupling, work.placed(variables), gates, work.batches())
    kept = choose(coupling, matters, config.compress.keep)

    smaller = coupling.cut(variables, kept)
    built = build(config, data, {**setup.built.fields, "layer_widths": widths_of(smaller)}, teacher=setup.teacher)
    setup = replace(setup, built=built)
    statistics = make_statistics(built.model, seen, built.recipe, seed=config.seed)
    smaller = with_statistics(work.placed(smaller), jax.jit(statistics), work.batches())

    before, after = (size(model, seen.height, seen.width, seen.channels) for model in (whole, built.model))
    compressed = {
        "method": "channels",
        "keep": config.compress.keep,
        "run": config.model.pretrained,
        "parameters": {"before": before.parameters, "after": after.parameters},
        "multiply_adds": {"before": before.multiply_adds, "after": after.multiply_adds},
    }
    display.say(
        f"channels: {after.multiply_adds / before.multiply_adds:.1%} of the multiply-adds are left "
        f"({after.multiply_adds:,} of {before.multiply_adds:,}), and {after.parameters / before.parameters:.1%} of the "
        f"parameters ({after.parameters:,} of {before.parameters:,})"
    )
    sums = work.evaluated(setup, smaller)
    figures = {"split": work.split, **figures_of(table.EVALUATION, sums)}
    progress = Progress(step=0)
    card = replace(setup.card, fields=built.fields, compressed=compressed)
    if work.split == "validation":
        progress = setup.judge.judged(replace(progress, evaluation=figures), 0, figures)
        if data.several_labels:
            thresholds = choose_thresholds(sums)
            progress = replace(progress, best={**(progress.best or {}), "thresholds": thresholds})
            card = replace(card, thresholds=thresholds)
    shown = (f"{name} {figures[name]:.4f}" for name in setup.judge.compared(figures))
    display.say(f"before it is trained on: {work.split} {', '.join(shown)}")
    run.create()
    with run.locked():
        run.write(setup.noted(config), card)
        log = RunLog(run, 0, evaluated=False)
        log.write(0, 0.0, {f"eval/{name}": value for name, value in figures.items()})
        log.close()
        saver = Checkpointer(run.checkpoints)
        placed = work.placed(smaller)
        saver.save(
            TrainState(
                step=jnp.zeros((), jnp.int32),
                params=placed["params"],
                batch_stats=placed["batch_stats"],
                opt_state={},
                ema=None,
            ),
            progress,
        )
        saver.close()


class _Work:
    """Batches of training images, and evaluation, on the devices that share a batch."""

    def __init__(self, config: Config, setup: Setup) -> None:
        self._config, self._setup, devices = config, setup, jax.devices()
        # A micro-batch at a time, which is what the run had memory for.
        self._size = config.batch_size // config.accumulate_steps
        self._mesh: Mesh = make_mesh(devices if self._size % len(devices) == 0 else devices[:1])
        self._count = min(_BATCHES, math.ceil(len(setup.data.training) / self._size))
        self.split = "validation" if "validation" in setup.data.splits else "test"

    def batches(self) -> Iterator[Batch]:
        data = self._setup.data
        stream = train_stream(
            data.training,
            order=data.order,
            batch_size=self._size,
            start_step=0,
            stop_step=self._count,
            threads=data.threads,
            boxes=self._setup.built.boxes,
        )
        return (shard_rows(batch, self._size, self._mesh) for batch in stream)

    def placed(self, variables: Variables) -> Variables:
        return jax.tree.map(lambda x: put(np.asarray(x), replicated(self._mesh)), variables)

    def evaluated(self, setup: Setup, variables: Variables) -> dict[str, np.ndarray]:
        """Returns the sums of an evaluation of the split that chooses, or of the test split where there is none."""
        sums = evaluate_split(
            jit_eval_step(setup.built.eval_step, self._mesh),
            self.placed(variables),
            setup.data.splits[self.split],
            batch_size=round_up(self._config.eval_batch_size or self._config.batch_size, self._mesh),
            mesh=self._mesh,
            threads=setup.data.threads,
        )
        assert sums is not None  # nothing stops it
        return sums
