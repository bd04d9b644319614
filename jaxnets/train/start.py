"""The weights that training starts from: those of another run, or of elsewhere, or made of the training images."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxnets.config import Config
from jaxnets.data.dataset import Dataset
from jaxnets.data.examples import Examples
from jaxnets.errors import UserError
from jaxnets.models.family import Variables
from jaxnets.models.quantised.network import in_float
from jaxnets.models.registry import family_of
from jaxnets.preprocess import Preprocess
from jaxnets.pretrained.convert import adapt
from jaxnets.pretrained.load import open_pretrained
from jaxnets.run.checkpoints import choose, read_variables
from jaxnets.run.directory import open_run
from jaxnets.run.resolve import resolve
from jaxnets.train.hosts import Hosts
from jaxnets.train.mesh import put
from jaxnets.train.step import TrainState


@dataclass(frozen=True, kw_only=True)
class Start:
    fields: Mapping[str, Any]  # of the model, that its config may replace; JSON values
    preprocess: Preprocess | None
    variables: Variables

    def into(self, state: TrainState, model: Any, channels: int, seed: int) -> TrainState:
        """Returns a fresh state with these weights, their head and stem adapted to the model and its images.

        Of the variables in `state` the shapes and shardings are asked for.

        Raises:
            UserError: if the model is built otherwise than the one that they are of.
        """
        adapted = adapt(self.variables, model, channels, seed)
        found, wanted = _shapes(adapted), _shapes(state.variables)
        if found != wanted:
            name, shape = sorted(found.items() ^ wanted.items())[0]
            raise UserError(
                f"config.model.pretrained does not fit: {'the model' if wanted.get(name) == shape else 'the file'} has "
                f"{name} {list(shape)}, and the other has not: give config.model the fields of what the weights are of "
                f"(shortcut, for instance)"
            )
        return with_variables(state, adapted)


def with_variables(state: TrainState, variables: Variables) -> TrainState:
    """Returns a fresh state with other weights, sharded as its own."""
    placed = jax.tree.map(lambda old, new: put(np.asarray(new), old.sharding), state.variables, variables)
    ema = None if state.ema is None else jax.tree.map(jnp.copy, placed)
    return replace(state, params=placed["params"], batch_stats=placed.get("batch_stats", {}), ema=ema)


_SEEN = 5000  # training images, evenly spaced, that weights are made of


def from_images(state: TrainState, model: nn.Module, data: Dataset, hosts: Hosts) -> TrainState:
    """Returns a fresh state with the weights that its network makes of the training images, where it makes any."""
    make = family_of(model).from_images
    if make is None:
        return state
    examples = Examples(*data.selections["train"], data.training_preprocess, skip_corrupt=data.skip_corrupt)
    indices = np.linspace(0, len(examples) - 1, min(len(examples), _SEEN)).astype(int)
    with ThreadPoolExecutor(max(data.threads, 1)) as pool:
        read = pool.map(examples.read, indices.tolist())
        images = np.stack([found.image for found in read if found.readable])
    p = data.training_preprocess
    shift, scale = np.asarray(p.mean, np.float32), np.asarray(p.std, np.float32)
    variables = jax.device_get(state.variables)
    made = make(model, variables, (images.astype(np.float32) / 255 - shift) / scale)
    if hosts.several:  # whose libraries may round otherwise
        from jax.experimental.multihost_utils import broadcast_one_to_all

        made = broadcast_one_to_all(made)
    return with_variables(state, made)


def _shapes(variables: Variables) -> dict[str, tuple[int, ...]]:
    return {
        "/".join(str(part.key) for part in path): np.shape(x)
        for path, x in jax.tree_util.tree_leaves_with_path(variables)
    }


def open_start(config: Config) -> Start | None:
    """Reads config.model.pretrained; None where it is not set. Of a run in 8 bits the weights go on in float.

    Raises:
        UserError: if it cannot be read, or is not of config.model.name.
    """
    source, name = config.model.pretrained, config.model.name
    if source is None:
        return None
    meant = resolve(source)
    if not meant.is_run:
        found = open_pretrained(name, meant)
        return Start(fields=found.fields, preprocess=found.preprocess, variables=found.variables)
    run = open_run(meant.location)
    card = run.read_model()
    if card.name != name:
        raise UserError(
            f"config.model.pretrained {source} holds a {card.name}, but config.model.name is {name}: give both one name"
        )
    variables = read_variables(run.checkpoints, choose(run.checkpoints, "best"), "ema")
    fields, variables = in_float(card.fields, variables)
    return Start(fields=fields, preprocess=card.preprocess, variables=variables)
