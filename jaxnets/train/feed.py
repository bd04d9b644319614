"""The two ways training data reaches the step: held on the device, or streamed to it."""

import logging
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int64

from jaxnets.config import Config
from jaxnets.data.batch import Batch
from jaxnets.data.dataset import Dataset
from jaxnets.data.examples import Examples, substitutes
from jaxnets.data.order import draw
from jaxnets.data.pipeline import rows_within, train_stream
from jaxnets.train.evaluation import eval_batch_size
from jaxnets.train.hosts import Hosts
from jaxnets.train.mesh import batch_like, local_rows, over_data, place, put, replicated, round_up
from jaxnets.train.step import StepMetrics, TrainState, TrainStep, make_chunk

_log = logging.getLogger(__name__)

_RESIDENT_STEPS = 32  # at most, per dispatch
_STREAMED_STEPS = 4  # at most, whose batches are under way at once


class Feed(Protocol):
    max_steps: int  # that `advance` takes at once

    def compile(self, state: TrainState) -> None:
        """Compiles the step for states like this one; `advance` wants it done."""
        ...

    def advance(self, state: TrainState, start: int, count: int) -> tuple[TrainState, list[StepMetrics]]:
        """Starts steps start … start + count − 1 and returns their state and metrics, not waiting for them.

        The metrics' arrays, put in a row, have at least `count` entries; `state` is donated.
        """
        ...


def make_feed(config: Config, data: Dataset, step: TrainStep, mesh: Mesh, stop_step: int, hosts: Hosts) -> Feed:
    """Returns the feed that `config.data.placement` asks for."""
    if resides(config, data.split("train")):
        return ResidentFeed(config, data, step, mesh, hosts)
    return StreamFeed(config, data, step, mesh, stop_step)


def load_what_fits(config: Config, data: Dataset, mesh: Mesh) -> None:
    """Reads what this process needs of the splits that are not streamed, so that no evaluation decodes them again."""
    for name, examples in data.splits.items():
        if resides(config, examples) and not examples.in_memory:
            if name == "train":
                share = _train_share(len(examples), mesh)
            else:
                batch_size = eval_batch_size(config, mesh)
                share = rows_within(len(examples), batch_size, local_rows(batch_size, mesh))
            _log.info("reading the %s split into memory: %s images", name, f"{len(share):,}")
            examples.load(data.threads, None if len(share) == len(examples) else share)


def _train_share(examples: int, mesh: Mesh) -> Int64[np.ndarray, " n"]:
    """Returns the examples that this process reads, where all come to lie on each device."""
    share = local_rows(round_up(examples, mesh), mesh)
    return share[share < examples]


def resides(config: Config, examples: Examples) -> bool:
    """Returns whether the config has these images lie on each device."""
    fits = examples.nbytes <= config.data.device_limit_mib * 2**20
    return config.data.placement == "device" or (config.data.placement == "auto" and fits)


class ResidentFeed:
    """All training images lie on each device; one dispatch runs many steps over them."""

    max_steps = _RESIDENT_STEPS

    def __init__(self, config: Config, data: Dataset, step: TrainStep, mesh: Mesh, hosts: Hosts) -> None:
        examples = data.split("train")
        self._images, self._labels = _resident(examples, data.threads, mesh, hosts)
        self._seed, self._examples, self._batch_size = config.seed, len(examples), config.batch_size
        self._by_column = over_data(mesh, axis=1)
        self._function, self._mesh = make_chunk(step, self.max_steps, over_data(mesh)), mesh

    def compile(self, state: TrainState) -> None:
        rows = self._rows(np.zeros(0, np.int32), 0)
        jitted = jit_train_step(self._function, state, self._mesh)
        self._chunk = jitted.lower(state, self._images, self._labels, rows, rows, np.int32(0)).compile()

    def advance(self, state: TrainState, start: int, count: int) -> tuple[TrainState, list[StepMetrics]]:
        drawn = draw(self._seed, self._examples, start * self._batch_size, count * self._batch_size)
        index, epoch = (self._rows(numbers, count) for numbers in drawn)
        state, metrics = self._chunk(state, self._images, self._labels, index, epoch, np.int32(count))
        return state, [metrics]

    def _rows(self, numbers: np.ndarray, count: int) -> jax.Array:
        rows = np.zeros((self.max_steps, self._batch_size), np.int32)
        rows[:count] = numbers.reshape(count, self._batch_size)
        return put(rows, self._by_column)


def jit_train_step(step: Callable[..., Any], state: TrainState, mesh: Mesh) -> Any:
    """Returns a step, or a chunk of them, as it is compiled: the state is donated and stays where it is."""
    places = jax.tree.map(lambda x: x.sharding, state)
    return jax.jit(step, donate_argnums=0, out_shardings=(places, replicated(mesh)))


def _resident(examples: Examples, threads: int, mesh: Mesh, hosts: Hosts) -> tuple[jax.Array, jax.Array]:
    """Returns images and labels on each device, with what stands in for corrupt ones in their place."""
    everywhere = replicated(mesh)
    share = _train_share(len(examples), mesh)
    if examples.whole or len(share) == len(examples):
        images, corrupt = examples.load(threads), examples.corrupt
        if corrupt:
            images = images[substitutes(len(examples), corrupt)]
        resident = put(images, everywhere)
    else:  # each process reads its share; the devices then give each other theirs, when all have read
        count, padded = len(examples), round_up(len(examples), mesh)
        images = examples.load(threads, share)[share]
        readable = ~np.isin(share, list(examples.corrupt))
        local = [
            np.concatenate([x, np.zeros((len(local_rows(padded, mesh)) - len(x), *x.shape[1:]), x.dtype)])
            for x in (images, readable)
        ]
        hosts.all("images", True)
        gather = jax.jit(lambda x: jax.tree.map(lambda y: y[:count], x), out_shardings=everywhere)
        resident, readable_everywhere = gather(place(local, padded, mesh))
        corrupt = frozenset(np.flatnonzero(~np.asarray(readable_everywhere)).tolist())
        if corrupt:
            index = put(substitutes(count, corrupt), everywhere)
            resident = jax.jit(lambda x, i: x[i], out_shardings=everywhere)(resident, index)
    labels = examples.labels[substitutes(len(examples), corrupt)] if corrupt else examples.labels
    return resident, put(labels, everywhere)


class StreamFeed:
    """Batches are decoded ahead on the host and go to the devices one by one."""

    max_steps = _STREAMED_STEPS

    def __init__(self, config: Config, data: Dataset, step: TrainStep, mesh: Mesh, stop_step: int) -> None:
        self._function, self._mesh = step, mesh
        self._batch_like = batch_like(config.batch_size, data.preprocess, mesh)
        self._rows_here = local_rows(config.batch_size, mesh)
        self._place = lambda batch: place(batch, config.batch_size, mesh)
        self._open = lambda start: train_stream(
            data.split("train"),
            seed=config.seed,
            batch_size=config.batch_size,
            start_step=start,
            stop_step=stop_step,
            threads=data.threads,
            rows=self._rows_here,
        )
        self._batches: Iterator[Batch] | None = None

    def compile(self, state: TrainState) -> None:
        self._step = jit_train_step(self._function, state, self._mesh).lower(state, self._batch_like).compile()

    def advance(self, state: TrainState, start: int, count: int) -> tuple[TrainState, list[StepMetrics]]:
        if self._batches is None:
            self._batches = self._open(start)
        done = []
        # All are read before the first step, so that an image that cannot be read leaves the state as it is.
        for batch in [next(self._batches) for _ in range(count)]:
            state, metrics = self._step(state, self._place(batch))
            done.append(metrics)
        return state, done
