"""Evaluation of a split: every example exactly once, on any batch size and any number of devices."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import Mesh

from jaxnets.config import Config
from jaxnets.data.batch import Batch
from jaxnets.data.dataset import Dataset
from jaxnets.data.examples import Examples
from jaxnets.data.pipeline import evaluation_batches
from jaxnets.metrics import Sums, Totals
from jaxnets.models.family import Variables
from jaxnets.train.hosts import Hosts
from jaxnets.train.mesh import batch_like, local_rows, place, replicated, round_up
from jaxnets.train.step import TrainState, make_eval_step
from jaxnets.train.stop import Stop, Stopped, unless
from jaxnets.train.watch import Watch

_AHEAD = 2  # batches under way on the device


def evaluate_split(
    eval_step: Callable[[Variables, Batch], Sums],
    variables: Variables,
    examples: Examples,
    *,
    batch_size: int,
    mesh: Mesh,
    threads: int,
    stopping: Callable[[int], bool] = lambda batch: False,
) -> Sums | None:
    """Returns the sums over all examples; `eval_step` is compiled, `batch_size` a multiple of the devices.

    None where `stopping`, which is asked before each batch, said so.
    """
    totals = Totals()
    under_way: list[Sums] = []
    rows = local_rows(batch_size, mesh)
    for number, batch in enumerate(evaluation_batches(examples, batch_size=batch_size, threads=threads, rows=rows)):
        if stopping(number):
            return None
        under_way.append(eval_step(variables, place(batch, batch_size, mesh)))
        if len(under_way) > _AHEAD:
            totals.add(under_way.pop(0))
    for sums in under_way:
        totals.add(sums)
    return totals.result()


def eval_batch_size(config: Config, mesh: Mesh) -> int:
    """Returns how many examples are evaluated at a time: as many as the config says, or a few more."""
    return round_up(config.eval_batch_size or config.batch_size, mesh)


def jit_eval_step(config: Config, model: nn.Module, data: Dataset, mesh: Mesh) -> Any:
    """Returns the evaluation step as it is compiled: the batch split over the mesh, the sums on every device."""
    step = make_eval_step(model, data.preprocess, jax.numpy.dtype(config.dtype))
    return jax.jit(step, out_shardings=replicated(mesh))


class Evaluator:
    """Evaluates splits with one compiled step."""

    def __init__(self, config: Config, model: nn.Module, data: Dataset, mesh: Mesh, hosts: Hosts, watch: Watch) -> None:
        self._data, self._mesh, self._hosts, self._watch = data, mesh, hosts, watch
        self._batch_size = eval_batch_size(config, mesh)
        self._jitted = jit_eval_step(config, model, data, mesh)
        self._step: Callable[[Variables, Batch], Sums] | None = None

    def __call__(self, state: TrainState, split: str, stop: Stop, name: str) -> Sums | None:
        """Returns the sums over a split, with the averaged weights where the run keeps them; None if stopped.

        `name` tells this evaluation from all others of the session.
        """
        variables = state.variables if state.ema is None else state.ema
        if self._step is None:
            with suppress(Stopped):
                self._step = unless(stop, lambda: self._compile(variables))
            if not self._hosts.all(f"{name}/compiled", self._step is not None):
                self._step = None  # on all of them, so that all ask again together
                return None
        assert self._step is not None

        def stopping(batch: int) -> bool:
            self._watch.progress()
            return bool(self._hosts.decide(f"{name}/{batch}", lambda: bool(stop)))

        return evaluate_split(
            self._step,
            variables,
            self._data.split(split),
            batch_size=self._batch_size,
            mesh=self._mesh,
            threads=self._data.threads,
            stopping=stopping,
        )

    def _compile(self, variables: Variables) -> Callable[[Variables, Batch], Sums]:
        like = batch_like(self._batch_size, self._data.preprocess, self._mesh)
        return self._jitted.lower(variables, like).compile()
