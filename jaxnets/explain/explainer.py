"""Explaining batches of images: the programs of a model's explanations, each made once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Float32, Int32, UInt8

from jaxnets.errors import UserError
from jaxnets.explain.methods import DEFAULT, METHODS, WITHOUT_STAGES, Method, find_method
from jaxnets.explain.stage import find_stage, logits_and_output, stages
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.family import Network, Variables
from jaxnets.models.registry import family_of
from jaxnets.preprocess import Preprocess

_BATCH = 16  # images that are explained at once, at most


@dataclass(frozen=True, repr=False)
class Explainer:
    """Explains the answers of one model; of one in 8 bits those of its weights in floating point."""

    model: nn.Module
    variables: Variables
    preprocess: Preprocess
    matmul_precision: str = "default"
    _programs: dict[tuple[str, str], Callable[..., Any]] = field(default_factory=dict)  # by method and layer

    def __post_init__(self) -> None:
        if isinstance(self.model, Network):  # what follows looks into the layers, which 8 bits leave no trace of
            object.__setattr__(self, "model", self.model.in_float())

    def choose(self, method: str | None, stage: str | None) -> Method:
        """Returns the method of a name; without one Grad-CAM, or occlusion where no stage has rows and columns.

        Raises:
            UserError: for a method that is none, or that takes no stage where one is given.
        """
        if method is None:
            return DEFAULT if stage is not None or self.has_places else WITHOUT_STAGES
        found = find_method(method)
        if stage is not None and not found.by_stage:
            by_stage = ", ".join(name for name, other in METHODS.items() if other.by_stage)
            raise UserError(
                f"{found.name} asks the whole network, and stage {stage!r} is given: leave the stage out, or take "
                f"{by_stage}"
            )
        return found

    @cached_property
    def has_places(self) -> bool:
        """Whether the last stage tells places of an image apart."""
        image = np.zeros((1, self.preprocess.height, self.preprocess.width, self.preprocess.channels), np.uint8)
        layer = find_stage(self.model, None) if stages(self.model) else None
        if layer is None:
            return False
        with plain_convolutions():
            _, output = jax.eval_shape(
                lambda variables, image: logits_and_output(self.model, self.preprocess, variables, image, layer, None),
                self.variables,
                image,
            )
        return output.shape[1:3] != (1, 1)

    def suits(self, method: Method) -> bool:
        """Tells whether a method can explain this network."""
        if method.attends:
            return family_of(self.model).structure(self.model).tokens is not None
        return not method.by_stage or self.has_places

    def maps(
        self,
        method: Method,
        images: UInt8[np.ndarray, "b h w c"],
        labels: Int32[np.ndarray, " b"],
        stage: str | None = None,
    ) -> Float32[np.ndarray, "b rows columns"]:
        """Returns a map for each image that `preprocess.fit` has brought to size.

        Raises:
            UserError: for a stage that there is not, or that has one place alone.
        """
        layer = find_stage(self.model, stage) if method.by_stage else ""
        key = method.name, layer
        if key not in self._programs:
            made = method.make(self.model, self.preprocess, layer)
            self._programs[key] = jax.jit(made) if method.compiled else made
        found = []
        with jax.default_matmul_precision(self.matmul_precision):
            for start in range(0, len(images), _BATCH):
                found.append(self._batch(key, images[start : start + _BATCH], labels[start : start + _BATCH]))
        maps = np.concatenate(found)
        if maps.shape[1:] == (1, 1) and (self.preprocess.height, self.preprocess.width) != (1, 1):
            others = ", ".join(name for name, other in METHODS.items() if not other.by_stage and not other.attends)
            raise UserError(
                f"{stage or 'the last stage'} has one place for all of an image of {self.preprocess.height} × "
                f"{self.preprocess.width} pixels, and cannot say which of them matter: ask an earlier stage, or take "
                f"{others}"
            )
        return maps

    def _batch(self, key: tuple[str, str], images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Returns the maps of some images, padded to a power of two, so that few programs serve batches of any size."""
        padding = (1 << (len(images) - 1).bit_length()) - len(images) if METHODS[key[0]].compiled else 0
        padded = np.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0)))
        found = self._programs[key](self.variables, padded, np.pad(labels.astype(np.int32), (0, padding)))
        return np.asarray(found, np.float32)[: len(images)]
