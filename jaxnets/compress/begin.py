"""The first checkpoint of a run whose network was made of another run's before it trains, and the work for it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxnets.config import Config
from jaxnets.data.batch import Batch
from jaxnets.data.pipeline import train_stream
from jaxnets.metrics import table
from jaxnets.metrics.metric import figures_of
from jaxnets.metrics.thresholds import choose_thresholds
from jaxnets.models.family import Variables
from jaxnets.recipe.compress import CompressConfig
from jaxnets.run.checkpoints import Progress
from jaxnets.run.directory import RunDirectory
from jaxnets.train.build import build
from jaxnets.train.display import Display
from jaxnets.train.evaluation import evaluate_split, jit_eval_step
from jaxnets.train.hosts import Hosts
from jaxnets.train.log import RunLog
from jaxnets.train.loop import Setup, set_up
from jaxnets.train.mesh import make_mesh, put, replicated, round_up, shard_rows
from jaxnets.train.saver import Checkpointer
from jaxnets.train.step import TrainState

_BATCHES = 32  # of training images, an epoch at most, that something is found out from


class Beginning:
    """A run that another run's weights begin, as a config describes it, with nothing written yet.

    What is computed on the way is computed on the devices that share a batch.
    """

    def __init__(self, config: Config, run: RunDirectory) -> None:
        self.config, self.run = config, run
        # As if nothing were to be made smaller: the whole network, from the weights that the config names.
        self.setup: Setup = set_up(replace(config, compress=CompressConfig()), run, Hosts())
        assert self.setup.start is not None, "a run is what config.model.pretrained names"
        data = self.setup.data
        fresh = self.setup.phases.first_without_variables()
        state = self.setup.start.into(fresh, self.setup.built.model, data.preprocess.channels, config.seed)
        self.variables: Variables = jax.tree.map(np.asarray, jax.device_get(state.variables))
        devices = jax.devices()
        # A micro-batch at a time, which is what the run had memory for.
        self._size = config.batch_size // config.accumulate_steps
        self._mesh: Mesh = make_mesh(devices if self._size % len(devices) == 0 else devices[:1])
        self._count = min(_BATCHES, math.ceil(len(data.training) / self._size))
        self._split = "validation" if "validation" in data.splits else "test"

    def with_fields(self, fields: Mapping[str, Any]) -> None:
        """Builds the network anew, with other fields."""
        setup = self.setup
        built = build(self.config, setup.data, {**setup.built.fields, **fields}, teacher=setup.teacher)
        self.setup = replace(setup, built=built)

    def batches(self) -> Iterator[Batch]:
        """Returns some batches of training images, as the training sees them first."""
        data = self.setup.data
        stream = train_stream(
            data.training,
            order=data.order,
            batch_size=self._size,
            start_step=0,
            stop_step=self._count,
            threads=data.threads,
            boxes=self.setup.built.boxes,
        )
        return (shard_rows(batch, self._size, self._mesh) for batch in stream)

    def placed(self, variables: Variables) -> Variables:
        return jax.tree.map(lambda x: put(np.asarray(x), replicated(self._mesh)), variables)

    def write(self, variables: Variables, compressed: dict[str, Any], display: Display) -> None:
        """Evaluates the network and writes config.json, model.json and the checkpoint of step 0.

        Args:
            variables: of the network.
            compressed: what model.json says of how it was made.
            display: what says how good it is before it trains.
        """
        setup, data, placed = self.setup, self.setup.data, self.placed(variables)
        # Of the split that chooses, or of the test split where there is none.
        sums = evaluate_split(
            jit_eval_step(setup.built.eval_step, self._mesh),
            placed,
            data.splits[self._split],
            batch_size=round_up(self.config.eval_batch_size or self.config.batch_size, self._mesh),
            mesh=self._mesh,
            threads=data.threads,
        )
        assert sums is not None  # nothing stops it
        figures = {"split": self._split, **figures_of(table.EVALUATION, sums)}
        progress = Progress(step=0)
        card = replace(setup.card, fields=setup.built.fields, compressed=compressed)
        if self._split == "validation":
            progress = setup.judge.judged(replace(progress, evaluation=figures), 0, figures)
            if data.several_labels:
                thresholds = choose_thresholds(sums)
                progress = replace(progress, best={**(progress.best or {}), "thresholds": thresholds})
                card = replace(card, thresholds=thresholds)
        shown = (f"{name} {figures[name]:.4f}" for name in setup.judge.compared(figures))
        display.say(f"before it is trained on: {self._split} {', '.join(shown)}")
        self.run.create()
        with self.run.locked():
            self.run.write(setup.noted(self.config), card)
            log = RunLog(self.run, 0, evaluated=False)
            log.write(0, 0.0, {f"eval/{name}": value for name, value in figures.items()})
            log.close()
            saver = Checkpointer(self.run.checkpoints)
            saver.save(
                TrainState(
                    step=jnp.zeros((), jnp.int32),
                    params=placed["params"],
                    batch_stats=placed.get("batch_stats", {}),
                    opt_state={},
                    ema=None,
                ),
                progress,
            )
            saver.close()
