"""Evaluation of a split: every example exactly once, on any batch size and any number of devices."""

from collections.abc import Callable, Sequence
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
from jaxnets.train.mesh import over_data, replicated, round_up
from jaxnets.train.step import TrainState, Variables, make_eval_step

_AHEAD = 2  # batches under way on the device


def evaluate_split(
    eval_step: Callable[[Variables, Batch], Sums],
    variables: Variables,
    examples: Examples,
    *,
    batch_size: int,
    mesh: Mesh,
    threads: int,
    stop: Sequence[object] = (),
) -> Sums | None:
    """Returns the sums over all examples; `eval_step` is compiled, `batch_size` a multiple of the devices.

    None where `stop` became non-empty before the end.
    """
    totals = Totals()
    under_way: list[Sums] = []
    for batch in evaluation_batches(examples, batch_size=batch_size, threads=threads):
        if stop:
            return None
        under_way.append(eval_step(variables, jax.device_put(batch, over_data(mesh))))
        if len(under_way) > _AHEAD:
            totals.add(under_way.pop(0))
    for sums in under_way:
        totals.add(sums)
    return totals.result()


def jit_eval_step(config: Config, model: nn.Module, data: Dataset, mesh: Mesh) -> Any:
    """Returns the evaluation step as it is compiled: the batch split over the mesh, the sums on every device."""
    step = make_eval_step(model, data.preprocess, jax.numpy.dtype(config.dtype))
    return jax.jit(step, out_shardings=replicated(mesh))


class Evaluator:
    """Evaluates splits with one compiled step."""

    def __init__(self, config: Config, model: nn.Module, data: Dataset, mesh: Mesh) -> None:
        self._data, self._mesh = data, mesh
        self._batch_size = round_up(config.eval_batch_size or config.batch_size, mesh)
        self._step = jit_eval_step(config, model, data, mesh)

    def __call__(self, state: TrainState, split: str, stop: Sequence[object] = ()) -> Sums | None:
        """Returns the sums over a split, with the averaged weights where the run keeps them; None if stopped."""
        return evaluate_split(
            self._step,
            state.variables if state.ema is None else state.ema,
            self._data.split(split),
            batch_size=self._batch_size,
            mesh=self._mesh,
            threads=self._data.threads,
            stop=stop,
        )
