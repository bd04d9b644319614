"""Evaluation of a split: every example exactly once, on any batch size and any number of devices."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxnets.data.allocator import give_back_freed_memory
from jaxnets.data.batch import Batch
from jaxnets.data.examples import Examples
from jaxnets.data.pipeline import evaluation_batches
from jaxnets.metrics.metric import Sums, Totals
from jaxnets.models.family import Variables
from jaxnets.train.around import Around
from jaxnets.train.mesh import batch_like, local_rows, replicated, shard_rows
from jaxnets.train.stop import Stopped, unless

EvalStep = Callable[[Variables, Batch], Sums]

_AHEAD = 2  # batches under way on the device


def evaluate_split(
    eval_step: EvalStep,
    variables: Variables,
    examples: Examples,
    *,
    batch_size: int,
    mesh: Mesh,
    threads: int,
    stopping: Callable[[int], bool] = lambda batch: False,
) -> dict[str, np.ndarray] | None:
    """Returns the sums over all examples; `eval_step` is compiled, `batch_size` a multiple of the devices.

    None where `stopping`, which is asked before each batch, said so.
    """
    totals = Totals()
    under_way: list[Sums] = []
    rows = local_rows(batch_size, mesh)
    for number, batch in enumerate(evaluation_batches(examples, batch_size=batch_size, threads=threads, rows=rows)):
        if stopping(number):
            return None
        under_way.append(eval_step(variables, shard_rows(batch, batch_size, mesh)))
        if len(under_way) > _AHEAD:
            totals.add(under_way.pop(0))
    for sums in under_way:
        totals.add(sums)
    return totals.result()


def jit_eval_step(eval_step: EvalStep, mesh: Mesh) -> Any:
    """Returns an evaluation step as it is compiled: the batch split over the mesh, the sums on every device."""
    return jax.jit(eval_step, out_shardings=replicated(mesh))


class Evaluator:
    """Evaluates splits with one compiled step.

    `batch_size` is a multiple of the devices; `around` are the stops, the hosts and the watch of the session.
    """

    def __init__(self, eval_step: EvalStep, batch_size: int, threads: int, mesh: Mesh, around: Around) -> None:
        self._batch_size, self._threads, self._mesh, self._around = batch_size, threads, mesh, around
        self._jitted = jit_eval_step(eval_step, mesh)
        self._step: EvalStep | None = None

    def __call__(self, variables: Variables, examples: Examples, name: str) -> dict[str, np.ndarray] | None:
        """Returns the sums over a split; None if stopped.

        `name` tells this evaluation from all others of the session.
        """
        stop, hosts, watch = self._around
        if self._step is None:
            with suppress(Stopped):
                self._step = unless(stop, lambda: self._compile(variables, examples))
            if not hosts.all(f"{name}/compiled", self._step is not None):
                self._step = None  # on all of them, so that all ask again together
                return None
        assert self._step is not None

        def stopping(batch: int) -> bool:
            watch.progress()
            return bool(hosts.decide(f"{name}/{batch}", lambda: bool(stop)))

        return evaluate_split(
            self._step,
            variables,
            examples,
            batch_size=self._batch_size,
            mesh=self._mesh,
            threads=self._threads,
            stopping=stopping,
        )

    def _compile(self, variables: Variables, examples: Examples) -> EvalStep:
        like = batch_like(self._batch_size, examples.shape, self._mesh, *examples.labels.shape[1:])
        step: EvalStep = self._jitted.lower(variables, like).compile()
        give_back_freed_memory()
        return step
