"""From a file's arrays to a model's variables, and from its own head and stem to those that a user wants."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from jaxnets.dtypes import widest
from jaxnets.errors import UserError
from jaxnets.models.family import Layout, Variables
from jaxnets.models.layers import Head, with_two_outputs
from jaxnets.models.registry import family_of
from jaxnets.pretrained.layouts import Slot, array_keys, slots

Arrays = Mapping[str, np.ndarray]


def to_variables(arrays: Arrays, layout: Layout, model: nn.Module, channels: int, description: str) -> Variables:
    """Returns the model's variables from arrays in `layout`, as float32.

    Every key is consumed. What has no place in the model, what the model has no array for and what has another shape is
    named.

    Raises:
        UserError: if a key is missing, left over, or has another shape than the model's.
    """
    found = slots(layout, model, channels)
    # How often PyTorch has updated a norm: no part of the function.
    counters = {_sibling(slot.keys[0], "num_batches_tracked") for slot in found if slot.path[-1] == "mean"}
    known = {key: slot for slot in found for key in slot.keys}
    missing = [f"{key} {list(slot.foreign_shape)}" for key, slot in known.items() if key not in arrays]
    surplus = [f"{key} {list(arrays[key].shape)}" for key in arrays if key not in known and key not in counters]
    misshapen = [
        f"{key} {list(arrays[key].shape)} in place of {list(slot.foreign_shape)}"
        for key, slot in known.items()
        if key in arrays and arrays[key].shape != slot.foreign_shape
    ]
    problems = [
        f"{len(keys)} {what}: {', '.join(keys[:4])}{', …' if len(keys) > 4 else ''}"
        for what, keys in (
            ("missing", missing),
            ("that it has no place for", surplus),
            ("of another shape", misshapen),
        )
        if keys
    ]
    if problems:
        raise UserError(
            f"{description} does not fit the model, read in {layout.name}'s layout. Of its keys, "
            + "; ".join(problems)
            + ". Check that the model's name is that of the weights"
        )
    variables: Variables = {"params": {}, "batch_stats": {}}
    for slot in found:
        _put(variables, slot, np.ascontiguousarray(slot.to_ours(arrays), np.float32))
    return {collection: tree for collection, tree in variables.items() if tree}


def to_arrays(variables: Variables, layout: Layout, model: nn.Module, channels: int) -> dict[str, np.ndarray]:
    """Returns the model's variables under the keys of `layout`, the inverse of `to_variables`."""
    found: dict[str, np.ndarray] = {}
    for slot in slots(layout, model, channels):
        leaf: Any = variables[slot.collection]
        for name in slot.path:
            leaf = leaf[name]
        found |= {key: np.ascontiguousarray(x) for key, x in slot.to_foreign(np.asarray(leaf)).items()}
    return found


def sizes(arrays: Arrays, layout: Layout, model: nn.Module, description: str) -> tuple[int, int]:
    """Returns (classes, channels) of the network that the arrays belong to.

    Raises:
        UserError: if its stem or head is missing.
    """
    structure = family_of(model).structure(model)
    stem, head = (
        array_keys(layout.module_key(model, (name,)), "weight")[0] for name in (structure.stem[0], structure.head)
    )
    for key in (stem, head):
        if key not in arrays or arrays[key].ndim < 2:
            raise UserError(f"{description} has no array {key}: it needs the whole network, its head included")
    return arrays[head].shape[0], arrays[stem].shape[1]


def adapt(variables: Variables, model: Any, channels: int, seed: int = 0) -> Variables:
    """Returns the variables for `model`'s classes and for images of `channels`, in the dtype of its parameters.

    Another number of classes gets a new head, drawn from the seed as a new model's is. Two classes keep theirs, be it
    in one output or in two.
    """
    params, structure = dict(variables["params"]), family_of(model).structure(model)
    stem, head = structure.stem[0], structure.head
    if params[stem]["kernel"].shape[2] != channels:
        params[stem] = {**params[stem], "kernel": _with_channels(np.asarray(params[stem]["kernel"]), channels)}
    params[head] = _head(params[head], model, seed)
    return jax.tree.map(lambda leaf: np.asarray(leaf, widest(model.dtype)), {**variables, "params": params})


def _head(params: Any, model: Any, seed: int) -> Any:
    features, outputs = params["kernel"].shape
    wanted = Head(model.num_classes, model.single_output)
    if outputs == wanted.outputs:
        return params
    if (outputs, wanted.outputs) == (2, 1):
        return {name: np.asarray(leaf)[..., 1:] - np.asarray(leaf)[..., :1] for name, leaf in params.items()}
    if (outputs, wanted.outputs) == (1, 2):
        return dict(zip(("kernel", "bias"), with_two_outputs(params["kernel"], params["bias"]), strict=True))
    drawn: Any = wanted.init(jax.random.key(seed), np.zeros((1, features), np.float32))
    return drawn["params"]


def _with_channels(kernel: Float[np.ndarray, "i j c f"], channels: int) -> Float[np.ndarray, "i j channels f"]:
    """Returns a stem's kernel for other images, whose response to grey is what it was.

    Grey means that all channels hold the same number. Fewer channels share the sum of the kernel's; more repeat them in
    turn, each divided by how often it occurs.
    """
    own = kernel.shape[2]
    if channels < own:
        return np.repeat(kernel.sum(2, keepdims=True) / channels, channels, axis=2)
    turn = np.arange(channels) % own
    return kernel[:, :, turn] / np.bincount(turn)[turn][:, None]


def _put(variables: Variables, slot: Slot, array: np.ndarray) -> None:
    tree = variables[slot.collection]
    for name in slot.path[:-1]:
        tree = tree.setdefault(name, {})
    tree[slot.path[-1]] = array


def _sibling(key: str, leaf: str) -> str:
    return f"{key.rpartition('.')[0]}.{leaf}"
