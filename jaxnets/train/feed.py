"""The two ways training data reaches the step: held on the device, or streamed to it."""

import logging
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from jaxnets.config import Config
from jaxnets.data.batch import Batch
from jaxnets.data.dataset import Dataset
from jaxnets.data.examples import Examples
from jaxnets.data.order import draw
from jaxnets.data.pipeline import train_stream
from jaxnets.train.mesh import over_data, replicated
from jaxnets.train.step import StepMetrics, TrainState, TrainStep, make_chunk

_log = logging.getLogger(__name__)

_RESIDENT_STEPS = 32  # at most, per dispatch
_STREAMED_STEPS = 4  # at most, whose batches are under way at once


class Feed(Protocol):
    max_steps: int  # that `advance` takes at once

    def advance(self, state: TrainState, start: int, count: int) -> tuple[TrainState, list[StepMetrics]]:
        """Starts steps start … start + count − 1 and returns their state and metrics, not waiting for them.

        The metrics' arrays, put in a row, have at least `count` entries; `state` is donated.
        """
        ...


def make_feed(config: Config, data: Dataset, step: TrainStep, mesh: Mesh, stop_step: int) -> Feed:
    """Returns the feed that `config.data.placement` asks for."""
    if resides(config, data.split("train")):
        return ResidentFeed(config, data, step, mesh)
    return StreamFeed(config, data, step, mesh, stop_step)


def load_what_fits(config: Config, data: Dataset) -> None:
    """Reads the splits that need not be streamed into memory, so that no evaluation decodes them again."""
    for name, examples in data.splits.items():
        if resides(config, examples) and not examples.in_memory:
            _log.info("reading the %s split into memory: %s pictures", name, f"{len(examples):,}")
            examples.load(data.threads)


def resides(config: Config, examples: Examples) -> bool:
    """Returns whether the config has these pictures lie on each device."""
    fits = examples.nbytes <= config.data.device_limit_mib * 2**20
    return config.data.placement == "device" or (config.data.placement == "auto" and fits)


class ResidentFeed:
    """All training pictures lie on each device; one dispatch runs many steps over them."""

    max_steps = _RESIDENT_STEPS

    def __init__(self, config: Config, data: Dataset, step: TrainStep, mesh: Mesh) -> None:
        examples = data.split("train")
        images, labels = examples.load(data.threads), examples.labels
        if examples.corrupt:
            substitutes = examples.substitutes()
            images, labels = images[substitutes], labels[substitutes]
        everywhere = replicated(mesh)
        self._images, self._labels = jax.device_put((images, labels), everywhere)
        self._seed, self._examples, self._batch_size = config.seed, len(examples), config.batch_size
        self._by_column = over_data(mesh, axis=1)
        self._chunk = jax.jit(
            make_chunk(step, self.max_steps, over_data(mesh)),
            donate_argnums=0,
            out_shardings=(everywhere, everywhere),
        )

    def advance(self, state: TrainState, start: int, count: int) -> tuple[TrainState, list[StepMetrics]]:
        drawn = draw(self._seed, self._examples, start * self._batch_size, count * self._batch_size)
        index, epoch = (self._rows(numbers, count) for numbers in drawn)
        state, metrics = self._chunk(state, self._images, self._labels, index, epoch, np.int32(count))
        return state, [metrics]

    def _rows(self, numbers: np.ndarray, count: int) -> jax.Array:
        rows = np.zeros((self.max_steps, self._batch_size), np.int32)
        rows[:count] = numbers.reshape(count, self._batch_size)
        return jax.device_put(rows, self._by_column)


def jit_train_step(step: TrainStep, mesh: Mesh) -> Any:
    """Returns the step as it is compiled: the state replicated and donated, the batch split over the mesh."""
    everywhere = replicated(mesh)
    return jax.jit(step, donate_argnums=0, out_shardings=(everywhere, everywhere))


class StreamFeed:
    """Batches are decoded ahead on the host and go to the devices one by one."""

    max_steps = _STREAMED_STEPS

    def __init__(self, config: Config, data: Dataset, step: TrainStep, mesh: Mesh, stop_step: int) -> None:
        self._step = jit_train_step(step, mesh)
        self._split = over_data(mesh)
        self._open = lambda start: train_stream(
            data.split("train"),
            seed=config.seed,
            batch_size=config.batch_size,
            start_step=start,
            stop_step=stop_step,
            threads=data.threads,
        )
        self._batches: Iterator[Batch] | None = None

    def advance(self, state: TrainState, start: int, count: int) -> tuple[TrainState, list[StepMetrics]]:
        if self._batches is None:
            self._batches = self._open(start)
        done = []
        # All are read before the first step, so that a picture that cannot be read leaves the state as it is.
        for batch in [next(self._batches) for _ in range(count)]:
            state, metrics = self._step(state, jax.device_put(batch, self._split))
            done.append(metrics)
        return state, done
