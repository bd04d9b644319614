"""A family's network in 8 bits: the same layers and parameters, and the ranges of its activations beside them."""

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from jaxnets.models.conv import plain_convolutions
from jaxnets.models.family import Network, Outputs, Path, Variables
from jaxnets.models.mode import Train
from jaxnets.models.quantised.program import Simulation

RANGES = "ranges"  # in the collection batch_stats, beside the norms' statistics
QUANTISED = "quantised"  # the field by which `create_model` is asked for such a network


def quantised(network: type[Network]) -> type[Network]:
    """Returns the class of a family's networks that compute as they would in 8 bits (`quantised.program`).

    Norms are part of the weights before them, by their running statistics, which stay as they are in training too; no
    noise is drawn. In training each range of activations follows the lowest and the highest value of the batch, as an
    exponential average; they are among the statistics, so that whatever keeps those keeps these.
    """

    whole: Any = network
    made: type[Network] = _made(whole)
    return made


@cache
def _made(network: Any) -> Any:
    class Quantised(network):
        range_decay: float = 0.99  # weight of the old range
        quantised: ClassVar[bool] = True

        @nn.compact
        def outputs(self, x: Float[Array, "b h w c"], train: Train) -> Outputs:
            if self.is_initializing():
                found = super().outputs(x, False)
                paths = _places(self.in_float(), self.variables, x)
                self.variable("batch_stats", RANGES, lambda: unflatten_dict(dict.fromkeys(paths, jnp.array([-1.0, 1]))))
                return found
            ranges: Any = self.variable("batch_stats", RANGES, dict)
            simulation = Simulation(flatten_dict(ranges.value), self.range_decay if train else None)
            result = _simulated(simulation, self.in_float(), self.variables, x)
            if train:
                ranges.value = unflatten_dict(simulation.found)
            return result

        def in_float(self) -> Any:
            own = {
                field.name: getattr(self, field.name)
                for field in dataclasses.fields(network)
                if field.name not in ("parent", "name")
            }
            return network(**own, parent=None)

        def follower(self) -> Any:
            return self.clone(range_decay=0.0)

    Quantised.__name__ = Quantised.__qualname__ = network.__name__
    return Quantised


def in_float(fields: Mapping[str, Any], variables: Variables) -> tuple[dict[str, Any], Variables]:
    """Returns fields and variables of the network in floating point, of one that may be in 8 bits."""
    return {name: value for name, value in fields.items() if name != QUANTISED}, _without_ranges(variables)


def _without_ranges(variables: Any) -> Variables:
    return {
        collection: {name: of_layer for name, of_layer in layers.items() if name != RANGES}
        for collection, layers in variables.items()
    }


def _places(model: Any, variables: Any, x: Array) -> tuple[Path, ...]:
    """Returns what has a range in a network."""

    def found(variables: Any, x: Array) -> Any:
        simulation = Simulation(None)
        _simulated(simulation, model, variables, x)
        return unflatten_dict(simulation.found)

    return tuple(flatten_dict(jax.eval_shape(found, variables, x)))


def _simulated(simulation: Simulation, model: Any, variables: Any, x: Array) -> Outputs:
    kept = _without_ranges(variables)
    with plain_convolutions():
        program, shape = jax.make_jaxpr(
            lambda variables, x: model.apply(variables, x, train=False, method="outputs"), return_shape=True
        )(kept, x)
    leaves = jax.tree_util.tree_leaves_with_path((kept, x))
    paths = [tuple(part.key for part in path[1:]) for path, _ in leaves[:-1]]
    results = simulation(program, paths, [leaf for _, leaf in leaves])
    made: Outputs = jax.tree.unflatten(jax.tree.structure(shape), results)
    return made
