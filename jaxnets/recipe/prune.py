"""Magnitude pruning while a network trains: gradually more of its weights become zero, and what is zero stays so.

The zeros themselves say which weights are pruned. Nothing else has to be kept for that: not in a checkpoint, nor for
the shards of a weight, nor by a training that starts from a pruned network.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Bool, Float, Int32

from jaxnets.dtypes import widest
from jaxnets.errors import UserError
from jaxnets.metrics.metric import Metric, Sums, Update, ratio
from jaxnets.models.family import Path, Structure
from jaxnets.recipe.compress import CompressConfig

Layers = Literal["adaptive", "uniform"]

_PRUNINGS = 25  # in a ramp, where the config does not say how often


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """Zhu & Gupta 2017, equation 1, from no zeros at the start: s(t) = s · (1 − (1 − t / end)³), with s = 1 − keep.

    Only kernels are pruned: of convolutions and dense layers, but for those of `dense` layers and for depthwise ones,
    which are few and matter much (both as in the paper, section 4.1). Biases and norms are not. What is zero before the
    first step stays zero too.
    """

    keep: float
    end: int  # steps after which no more are pruned
    every: int  # steps from one pruning to the next
    layers: Layers = "adaptive"
    dense: frozenset[str] = frozenset()  # layers under `params` that keep all of their weights

    def prunes(self, path: Path, x: Any) -> bool:
        """Tells whether a parameter is pruned."""
        depthwise = x.ndim == 4 and x.shape[2] == 1
        return path[-1] == "kernel" and x.ndim >= 2 and not depthwise and path[0] not in self.dense

    def sparsity(self, done: int) -> float:
        """Returns the share of the weights that are zero after so many steps."""
        return (1 - self.keep) * (1 - (1 - min(done, self.end) / self.end) ** 3)

    def due(self, done: Int32[Array, ""]) -> Bool[Array, ""]:
        """Tells whether weights are pruned at the end of the step that makes it so many."""
        return (done <= self.end) & ((done % self.every == 0) | (done == self.end))

    def kept(self, tree: Any, params: Any) -> Any:
        """Returns arrays in the shape of the parameters, or of some of them, with zeros where weights are pruned."""
        flat, like = flatten_dict(tree), flatten_dict(params)
        return unflatten_dict({
            path: jnp.where(like[path] == 0, jnp.zeros_like(x), x) if self.prunes(path, like[path]) else x
            for path, x in flat.items()
        })  # fmt: skip

    def __call__(self, params: Any, done: Int32[Array, ""]) -> Any:
        """Returns the parameters after so many steps, with more zeros where some are due."""
        flat, pruned = flatten_dict(params), self.weights(params)
        total = sum(x.size for x in pruned.values())
        at = [*range(0, self.end, self.every), self.end]
        # Counted on the host: float32 has no room for the numbers of weights.
        counts = jnp.asarray([round(self.sparsity(step) * total) for step in at], jnp.int32)
        number = jnp.where(done == self.end, len(at) - 1, done // self.every)
        taken = jax.lax.cond(
            self.due(done),
            partial(_without_least, layers=self.layers),
            lambda pruned, _: pruned,
            pruned,
            counts[number],
        )
        return unflatten_dict(flat | taken)

    def weights(self, params: Any) -> dict[Path, Any]:
        """Returns the parameters that are pruned.

        Raises:
            UserError: if there are none.
        """
        found = {path: x for path, x in flatten_dict(params).items() if self.prunes(path, x)}
        if not found:
            raise UserError(
                "config.compress.method magnitude finds nothing to prune in this network, whose stem and head keep all "
                "of their weights and which has no other kernels: take another model"
            )
        return found

    def zeros(self, params: Any) -> tuple[int, int]:
        """Returns how many of the weights that are pruned are zero, and how many there are."""
        found = self.weights(params).values()
        return sum(int(np.sum(np.asarray(x) == 0)) for x in found), sum(x.size for x in found)

    @property
    def metric(self) -> Metric:
        """The share of zeros that steps began with."""

        def sums(update: Update) -> Sums:
            found = self.weights(update.params).values()
            zeros = sum(jnp.sum(x == 0, dtype=jnp.float32) for x in found)
            share = jnp.asarray(zeros / sum(x.size for x in found), jnp.float32)
            return {"steps": jnp.int32(1), "sparsity": share}

        return Metric(sums, ratio("sparsity", "steps", name="sparsity"))


def _without_least(weights: dict[Path, Array], count: Int32[Array, ""], *, layers: Layers) -> dict[Path, Array]:
    """Returns the weights with zeros in place of the `count` of the lowest scores."""
    score, sizes = _SCORES[layers], [x.size for x in weights.values()]
    starts = np.cumsum([0, *sizes])
    squares = jnp.concatenate([jnp.square(x.astype(widest(x.dtype)).reshape(-1)) for x in weights.values()])
    # Two sorts for all layers together: they are what costs, to compile as well.
    layer, numbers = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes), np.arange(starts[-1], dtype=np.int32)
    _, fallen, number = jax.lax.sort((jnp.asarray(layer), -squares, jnp.asarray(numbers)), num_keys=2)
    scores = jnp.concatenate([score(-fallen[start : start + n]) for start, n in zip(starts[:-1], sizes, strict=True)])
    _, rising = jax.lax.sort((scores, number), num_keys=1)
    stays = jnp.zeros(starts[-1], bool).at[rising].set(jnp.asarray(numbers) >= count)
    return {
        path: jnp.where(stays[start : start + x.size].reshape(x.shape), x, jnp.zeros_like(x))
        for start, (path, x) in zip(starts[:-1], weights.items(), strict=True)
    }


def adaptive(squares: Float[Array, " n"]) -> Float[Array, " n"]:
    """Returns w² / Σ v² over the weights v of the layer that are no smaller (Lee et al. 2021, equation 3).

    To take the lowest of all layers disturbs each as little as it can be. The largest weight of a layer has the score
    1, so that no layer is emptied, and a factor before a layer's weights, which a norm undoes, changes nothing.
    `squares` are those of a layer's weights, the largest first.
    """
    return squares / jnp.maximum(jnp.cumsum(squares), jnp.finfo(squares.dtype).tiny)


def uniform(squares: Float[Array, " n"]) -> Float[Array, " n"]:
    """Returns the share of the layer's weights that are smaller, so that the lowest of all are an equal share of each.

    `squares` are those of a layer's weights, the largest first.
    """
    n = squares.size
    return jnp.asarray((np.arange(n, 0, -1) - 0.5) / n, squares.dtype)


_SCORES: dict[Layers, Callable[[Array], Array]] = {"adaptive": adaptive, "uniform": uniform}


def make_pruning(spec: CompressConfig, structure: Structure, steps: int) -> Pruning | None:
    """Returns the pruning that a config asks for, of a run of so many steps; None where it asks for none.

    The stem and the head keep all of their weights: the first is small and sees the image, the last says the classes.
    """
    if spec.method != "magnitude":
        return None
    end = max(1, round(spec.ramp * steps))
    every = spec.every_steps or max(1, end // _PRUNINGS)
    dense = frozenset({*structure.stem, structure.head, *structure.fixed})
    return Pruning(keep=spec.keep, end=end, every=min(every, end), layers=spec.layers, dense=dense)
