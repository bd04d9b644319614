"""BatchNorm's statistics, taken anew: those of averaged weights are not the average of the statistics."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from jaxnets.data.batch import Batch
from jaxnets.models.family import Variables
from jaxnets.models.mode import Train
from jaxnets.preprocess import Preprocess
from jaxnets.recipe.freeze import Frozen
from jaxnets.recipe.recipe import Recipe
from jaxnets.train.step import make_prepare, step_key

StatisticsOf = Callable[[Variables, Batch, Any], Any]  # variables, a batch and its number -> its statistics


def make_statistics(
    model: nn.Module, preprocess: Preprocess, recipe: Recipe, *, seed: int, frozen: Frozen | None = None
) -> StatisticsOf:
    """Returns the function that computes the statistics of one batch, augmented, mixed and with noise as in training.

    Norms that are `frozen` and use their running statistics keep them.
    """
    plain: Any = model
    prepare = make_prepare(recipe, plain.num_classes, seed)
    follower: Any = plain.follower()
    mode: Train = True if frozen is None else frozen.mode

    def statistics(variables: Variables, batch: Batch, number: Any) -> Any:
        key = step_key(seed, number)
        x = preprocess.normalise(prepare(batch, number).image, plain.dtype)
        _, updated = follower.apply(variables, x, train=mode, mutable=["batch_stats"], rngs={"dropout": key})
        return updated["batch_stats"]

    return statistics


def with_statistics(variables: Variables, statistics_of: StatisticsOf, batches: Iterable[Batch]) -> Variables:
    """Returns variables whose statistics are the mean of those of all batches (PyTorch's momentum=None)."""
    if "batch_stats" not in variables:
        return variables
    total: Any = None
    count = 0
    for number, batch in enumerate(batches):
        found = jax.tree.map(lambda x: np.asarray(x, np.float64), statistics_of(variables, batch, np.int32(number)))
        total = found if total is None else jax.tree.map(np.add, total, found)
        count += 1
    if total is None:
        raise ValueError("there are no batches to take statistics of")
    mean = jax.tree.map(lambda old, x: (x / count).astype(np.asarray(old).dtype), variables["batch_stats"], total)
    return {**variables, "batch_stats": mean}
