"""How much each channel of a network matters to its loss."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict

from jaxnets.compress.coupled import Coupling
from jaxnets.data.batch import Batch
from jaxnets.models.family import Path, Variables
from jaxnets.preprocess import Preprocess
from jaxnets.recipe.recipe import Recipe
from jaxnets.train.step import make_prepare

GatesOf = Callable[[Variables, Batch, Any], dict[Path, Any]]  # variables, a batch and its number -> of each norm


def make_gates(model: nn.Module, preprocess: Preprocess, recipe: Recipe, *, seed: int) -> GatesOf:
    """Returns the function that computes, of a batch, the derivative of the loss by a factor before each norm's output.

    It is γ · ∂L/∂γ + β · ∂L/∂β of each channel (Molchanov et al. 2019, section 3.2, with their gate after the norm).
    Norms use their running statistics; the images are augmented and mixed as in training, and nothing is dropped.
    """
    plain: Any = model
    prepare = make_prepare(recipe, plain.num_classes, seed)

    def gates(variables: Variables, batch: Batch, number: Any) -> dict[Path, Any]:
        examples = prepare(batch, number)
        x = preprocess.normalise(examples.image, plain.dtype)

        def loss(params: Any) -> Any:
            logits = plain.apply({**variables, "params": params}, x, train=False)
            return recipe.training_loss(logits, examples.target).mean()

        params = variables["params"]
        flat, gradient = flatten_dict(params), flatten_dict(jax.grad(loss)(params))
        norms = [path[:-1] for path in flatten_dict(variables.get("batch_stats", {})) if path[-1] == "mean"]
        return {
            norm: sum(flat[*norm, name] * gradient[*norm, name] for name in ("scale", "bias") if (*norm, name) in flat)
            for norm in norms
        }

    return gates


def importance(coupling: Coupling, variables: Variables, gates_of: GatesOf, batches: Iterable[Batch]) -> np.ndarray:
    """Returns of each channel the mean over batches of (Σ of its norms' gates)² (Molchanov et al. 2019, equation 8).

    The sum over all norms of a channel is the derivative by one factor before all that it is.
    """
    total, count = np.zeros(coupling.count), 0
    for number, batch in enumerate(batches):
        found = jax.device_get(gates_of(variables, batch, np.int32(number)))
        of_batch = np.zeros(coupling.count)
        for norm, values in found.items():
            np.add.at(of_batch, coupling.axes[("batch_stats", *norm, "mean"), 0], values.astype(np.float64))
        total += of_batch**2
        count += 1
    return total / max(count, 1)
