"""A model as two files, without a run around it: model.json, and each of its arrays as training left it, to the bit.

`python -m jaxnets.export --push-to` puts them on the Hub. They say all that a run directory says of its model: network,
classes, preprocessing, activation, thresholds and what was fitted for its answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxnets.errors import UserError, quoted
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.family import Variables
from jaxnets.pretrained.files import read_weights
from jaxnets.run.build import build_model
from jaxnets.run.directory import ModelCard, RunDirectory
from jaxnets.trust.outliers import Spread


@dataclass(frozen=True, kw_only=True)
class Portable:
    card: ModelCard
    model: nn.Module
    variables: Variables  # on the host
    spread: Spread | None  # of the training images, where distances from them are looked at


def pack(variables: Variables) -> bytes:
    """Returns variables as a safetensors file, whose keys are their paths: `params/stage1_block1/conv1/kernel`."""
    from safetensors.numpy import save

    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(variables))
    return save({_key(path): np.asarray(leaf, order="C") for path, leaf in leaves}, {"written_by": "jaxnets"})


def read_portable(weights: Path) -> Portable:
    """Reads a model from the file of its weights and the model.json beside it.

    Raises:
        UserError: if one of them is missing or damaged, or they do not go together.
    """
    directory = RunDirectory(weights.parent)
    if not directory.model.is_file():
        raise UserError(
            f"{weights} says what its arrays are in the model.json beside it, and there is none: fetch both"
        )
    card = directory.read_model()
    try:
        model = build_model(card)
    except TypeError as error:
        raise UserError(f"{directory.model} is not what jaxnets wrote ({error}): fetch it again") from error
    arrays, seen = read_weights(weights), card.preprocess
    image = jnp.zeros((1, seen.height, seen.width, seen.channels), jnp.float32)
    with plain_convolutions():
        expected: Any = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    if problem := _misfit(arrays, {_key(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(expected)}):
        raise UserError(f"{weights} does not fit the model.json beside it: {problem}. Fetch both again")
    variables = jax.tree_util.tree_map_with_path(lambda path, _: arrays[_key(path)], expected)
    return Portable(card=card, model=model, variables=variables, spread=directory.read_spread(card))


def _key(path: Any) -> str:
    return "/".join(str(part.key) for part in path)


def _misfit(arrays: Mapping[str, np.ndarray], expected: Mapping[str, jax.ShapeDtypeStruct]) -> str:
    """Returns why arrays are not those that are expected; "" where they are."""
    for key in sorted(arrays.keys() ^ expected.keys()):
        return f"{quoted(key)} is {'missing' if key in expected else 'no array of the model'}"
    for key, like in expected.items():
        found = arrays[key]
        if found.shape != like.shape or found.dtype.kind != "f":
            return f"{quoted(key)} is {found.dtype} {list(found.shape)} in place of {like.dtype} {list(like.shape)}"
    return ""
