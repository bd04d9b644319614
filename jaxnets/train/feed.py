"""The two ways training data reaches the step: held on the device, or streamed to it."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int64

from jaxnets.config import DataConfig
from jaxnets.data.allocator import give_back_freed_memory
from jaxnets.data.batch import Batch
from jaxnets.data.boxes import Boxes
from jaxnets.data.examples import Examples, substitutes
from jaxnets.data.loader import Loader
from jaxnets.data.order import Order
from jaxnets.data.pipeline import rows_within, train_stream
from jaxnets.metrics.metric import Sums
from jaxnets.train.hosts import Hosts
from jaxnets.train.mesh import batch_like, local_rows, over_data, put, replicated, round_up, shard_rows
from jaxnets.train.step import TrainState, TrainStep, make_chunk

_log = logging.getLogger(__name__)

_RESIDENT_STEPS = 32  # at most, per dispatch
_STREAMED_STEPS = 4  # at most, whose batches are under way at once
_LOOK_SECONDS = 0.005  # between two looks at whether the devices are done, while a batch is waited for


class Feed(Protocol):
    max_steps: int  # that `advance` takes at once
    waited: float  # seconds so far that the devices had nothing to do because a batch was not there
    flops: float | None  # of one step on one device, as compiled; None: not compiled, or not known

    def follow(self, step: TrainStep) -> None:
        """From here on takes its steps by this function, which is to be compiled."""
        ...

    def compile(self, state: TrainState) -> None:
        """Compiles the step for states of these shapes and shardings; `advance` wants it done."""
        ...

    def advance(self, state: TrainState, start: int, count: int) -> tuple[TrainState, list[Sums]]:
        """Starts steps start … start + count − 1 and returns their state and sums, not waiting for them.

        The sums' arrays, put in a row, have at least `count` entries; `state` is donated.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Which examples make which batch."""

    order: Order
    batch_size: int
    stop_step: int  # where the run ends, and reading ahead with it
    boxes: Boxes | None = None  # of images that the host cuts


def make_feed(
    spec: DataConfig, examples: Examples, draws: Draws, step: TrainStep, threads: int, mesh: Mesh, hosts: Hosts
) -> Feed:
    """Returns the feed that `config.data.placement` asks for; `examples` are those of training."""
    if resides(spec, examples):
        return ResidentFeed(examples, draws, step, threads, mesh, hosts)
    return StreamFeed(examples, draws, step, threads, mesh)


def load_what_fits(
    spec: DataConfig, training: Examples, evaluated: Examples, eval_batch_size: int, threads: int, mesh: Mesh
) -> None:
    """Reads what this process needs of the training images and of those that are evaluated again and again.

    What does not fit is streamed. Nothing else is read: the test split may be wanted once, at the end.
    """
    rows = {
        "training": (training, _train_share(len(training), mesh)),
        "evaluation": (
            evaluated,
            rows_within(len(evaluated), eval_batch_size, local_rows(eval_batch_size, mesh)),
        ),
    }
    for name, (examples, share) in rows.items():
        if resides(spec, examples) and not examples.in_memory:
            _log.info("reading the images for %s into memory: %s", name, f"{len(share):,}")
            examples.load(threads, None if len(share) == len(examples) else share)


def _train_share(examples: int, mesh: Mesh) -> Int64[np.ndarray, " n"]:
    """Returns the examples that this process reads, where all come to lie on each device."""
    share = local_rows(round_up(examples, mesh), mesh)
    return share[share < examples]


def resides(spec: DataConfig, examples: Examples) -> bool:
    """Returns whether the config has these images lie on each device."""
    if examples.cut:
        return False
    fits = examples.nbytes <= spec.device_limit_mib * 2**20
    return spec.placement == "device" or (spec.placement == "auto" and fits)


class ResidentFeed:
    """All training images lie on each device; one dispatch runs many steps over them."""

    max_steps = _RESIDENT_STEPS
    waited = 0.0
    flops: float | None = None

    def __init__(
        self, examples: Examples, draws: Draws, step: TrainStep, threads: int, mesh: Mesh, hosts: Hosts
    ) -> None:
        self._data = _resident(examples, threads, mesh, hosts)
        self._draws = draws
        self._by_column = over_data(mesh, axis=1)
        self._mesh = mesh
        self.follow(step)

    def follow(self, step: TrainStep) -> None:
        self._function = make_chunk(step, self.max_steps, over_data(self._mesh))

    def compile(self, state: TrainState) -> None:
        rows = self._rows(np.zeros(0, np.int32), 0)
        jitted = jit_train_step(self._function, state, self._mesh)
        self._chunk = jitted.lower(state, *self._data, rows, rows, np.int32(0)).compile()
        give_back_freed_memory()
        self.flops = _flops(self._chunk)  # of its loop, one round

    def advance(self, state: TrainState, start: int, count: int) -> tuple[TrainState, list[Sums]]:
        size = self._draws.batch_size
        drawn = self._draws.order.draw(start * size, count * size)
        index, epoch = (self._rows(numbers, count) for numbers in drawn)
        state, sums = self._chunk(state, *self._data, index, epoch, np.int32(count))
        return state, [sums]

    def _rows(self, numbers: np.ndarray, count: int) -> jax.Array:
        rows = np.zeros((self.max_steps, self._draws.batch_size), np.int32)
        rows[:count] = numbers.reshape(count, self._draws.batch_size)
        return put(rows, self._by_column)


def jit_train_step(step: Callable[..., Any], state: TrainState, mesh: Mesh) -> Any:
    """Returns a step, or a chunk of them, as it is compiled: the state is donated and keeps its shardings."""
    shardings = jax.tree.map(lambda x: x.sharding, state)
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, replicated(mesh)))


def _flops(compiled: Any) -> float | None:
    """Returns the operations of a compiled program, as XLA counts them; None where it does not."""
    try:
        return float(compiled.cost_analysis()["flops"])
    except Exception:  # each backend has errors of its own
        return None


def _resident(examples: Examples, threads: int, mesh: Mesh, hosts: Hosts) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns images, aspects and labels on each device, with what stands in for corrupt ones in their rows."""
    everywhere = replicated(mesh)
    share = _train_share(len(examples), mesh)
    if examples.whole or len(share) == len(examples):
        images, aspects, corrupt = examples.load(threads), examples.aspects, examples.corrupt
        if corrupt:
            chosen = substitutes(len(examples), corrupt)
            images, aspects = images[chosen], aspects[chosen]
        resident, aspects_there = put(images, everywhere), put(aspects, everywhere)
    else:  # each process reads its share; the devices then give each other theirs, when all have read
        count, padded = len(examples), round_up(len(examples), mesh)
        images = examples.load(threads, share)[share]
        readable = ~np.isin(share, list(examples.corrupt))
        missing = len(local_rows(padded, mesh)) - len(share)
        local = [
            np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)])
            for x in (images, examples.aspects[share], readable)
        ]
        hosts.all("images", True)
        gather = jax.jit(lambda x: jax.tree.map(lambda y: y[:count], x), out_shardings=everywhere)
        resident, aspects_there, readable_everywhere = gather(shard_rows(local, padded, mesh))
        corrupt = frozenset(np.flatnonzero(~np.asarray(readable_everywhere)).tolist())
        if corrupt:
            index = put(substitutes(count, corrupt), everywhere)
            take = jax.jit(lambda x, i: jax.tree.map(lambda y: y[i], x), out_shardings=everywhere)
            resident, aspects_there = take((resident, aspects_there), index)
    labels = examples.labels[substitutes(len(examples), corrupt)] if corrupt else examples.labels
    return resident, aspects_there, put(labels, everywhere)


def lower_step(
    spec: DataConfig, examples: Examples, step: TrainStep, state: TrainState, batch_size: int, mesh: Mesh
) -> Any:
    """Returns what the feed of these examples would compile for states of these shapes, without reading any."""
    if not resides(spec, examples):
        batch = batch_like(batch_size, examples.shape, mesh, *examples.labels.shape[1:])
        return jit_train_step(step, state, mesh).lower(state, batch)
    whole, count = replicated(mesh), len(examples)
    images, aspects, labels = (
        jax.ShapeDtypeStruct(shape, dtype, sharding=whole)
        for shape, dtype in (
            ((count, *examples.shape), np.uint8),
            ((count,), np.float32),
            (examples.labels.shape, examples.labels.dtype),
        )
    )
    rows = jax.ShapeDtypeStruct((_RESIDENT_STEPS, batch_size), np.int32, sharding=over_data(mesh, axis=1))
    chunk = make_chunk(step, _RESIDENT_STEPS, over_data(mesh))
    return jit_train_step(chunk, state, mesh).lower(state, images, aspects, labels, rows, rows, np.int32(0))


class StreamFeed:
    """Batches are decoded ahead on the host and go to the devices one by one."""

    max_steps = _STREAMED_STEPS
    flops: float | None = None

    def __init__(self, examples: Examples, draws: Draws, step: TrainStep, threads: int, mesh: Mesh) -> None:
        self._mesh = mesh
        self.follow(step)
        self._batch_like = batch_like(draws.batch_size, examples.shape, mesh, *examples.labels.shape[1:])
        self._shard = lambda batch: shard_rows(batch, draws.batch_size, mesh)
        self._open = lambda start: train_stream(
            examples,
            order=draws.order,
            batch_size=draws.batch_size,
            start_step=start,
            stop_step=draws.stop_step,
            threads=threads,
            rows=local_rows(draws.batch_size, mesh),
            boxes=draws.boxes,
        )
        self._batches: Loader | None = None
        self._last: Sums | None = None  # of the step that was started last
        self.waited = 0.0

    def follow(self, step: TrainStep) -> None:
        self._function = step

    def compile(self, state: TrainState) -> None:
        self._step = jit_train_step(self._function, state, self._mesh).lower(state, self._batch_like).compile()
        give_back_freed_memory()
        self.flops = _flops(self._step)

    def advance(self, state: TrainState, start: int, count: int) -> tuple[TrainState, list[Sums]]:
        if self._batches is None:
            self._batches = self._open(start)
        batches, done = self._batches, []
        # All are read before the first step, so that an image that cannot be read leaves the state as it is.
        for batch in [self._next(batches) for _ in range(count)]:
            state, sums = self._step(state, self._shard(batch))
            done.append(sums)
        self._last = done[-1]
        return state, done

    def _next(self, batches: Loader) -> Batch:
        idle_since = time.perf_counter() if self._idle() else None
        while not batches.ready(_LOOK_SECONDS):
            if idle_since is None and self._idle():
                idle_since = time.perf_counter()
        if idle_since is not None:
            self.waited += time.perf_counter() - idle_since
        return next(batches)

    def _idle(self) -> bool:
        """Whether all steps that were started are done."""
        started: Any = {} if self._last is None else self._last
        return all(x.is_ready() for x in started.values())
