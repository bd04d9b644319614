"""A model without its head: what makes the vectors that a head sees, and a checksum that tells it from others."""

import dataclasses
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from jaxnets.engine.embedding import Embedder, open_embedder
from jaxnets.models.family import TRAINING_FIELDS
from jaxnets.models.registry import family_of
from jaxnets.preprocess import Preprocess

_LINEN = ("parent", "name")  # fields that every module has


@dataclass(frozen=True)
class Backbone:
    """A model without its head."""

    name: str
    model: nn.Module
    variables: Any
    preprocess: Preprocess
    matmul_precision: str

    @cached_property
    def embedder(self) -> Embedder:
        """Opened when it is first asked for: not at all where all features are kept."""
        return open_embedder(
            self.model, self.variables, self.preprocess, name=self.name, matmul_precision=self.matmul_precision
        )

    @cached_property
    def numbers(self) -> int:
        """How many numbers a feature vector has."""
        return int(self.variables["params"][family_of(self.model).structure(self.model).head]["kernel"].shape[0])

    @cached_property
    def checksum(self) -> str:
        """Of all weights but the head's, and of what the model does with them."""
        head = family_of(self.model).structure(self.model).head
        params = {name: layer for name, layer in self.variables["params"].items() if name != head}
        own = [entry.name for entry in dataclasses.fields(self.model) if entry.name not in (*TRAINING_FIELDS, *_LINEN)]
        computes = {name: repr(getattr(self.model, name)) for name in own} | {"dtype": str(np.dtype(self.model.dtype))}
        found = zlib.crc32(repr((type(self.model).__name__, computes)).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path({**self.variables, "params": params}):
            found = zlib.crc32(jax.tree_util.keystr(path).encode(), found)
            found = zlib.crc32(np.ascontiguousarray(leaf).data, found)
        return f"{found:08x}"
