"""Evaluation of a split: every example exactly once, on any batch size and any number of devices."""

from collections.abc import Callable

import jax
from jax.sharding import Mesh

from jaxnets.data.batch import Batch
from jaxnets.data.examples import Examples
from jaxnets.data.pipeline import evaluation_batches
from jaxnets.metrics import Sums, Totals
from jaxnets.train.mesh import over_data
from jaxnets.train.step import Variables

_AHEAD = 2  # batches under way on the device


def evaluate_split(
    eval_step: Callable[[Variables, Batch], Sums],
    variables: Variables,
    examples: Examples,
    *,
    batch_size: int,
    mesh: Mesh,
    threads: int,
) -> Sums:
    """Returns the sums over all examples; `eval_step` is compiled, `batch_size` a multiple of the devices."""
    totals = Totals()
    under_way: list[Sums] = []
    for batch in evaluation_batches(examples, batch_size=batch_size, threads=threads):
        under_way.append(eval_step(variables, jax.device_put(batch, over_data(mesh))))
        if len(under_way) > _AHEAD:
            totals.add(under_way.pop(0))
    for sums in under_way:
        totals.add(sums)
    return totals.result()
