"""A trained model, ready to predict: `jaxnets.load("runs/x")`."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float32, UInt8

from jaxnets.errors import UserError
from jaxnets.models.registry import MODELS, create_model
from jaxnets.preprocess import Preprocess
from jaxnets.pretrained.load import open_pretrained
from jaxnets.rundir import ModelCard, RunDirectory, open_run
from jaxnets.train.checkpoint import choose, read_variables, steps
from jaxnets.train.step import Variables

_log = logging.getLogger(__name__)

Weights = Literal["ema", "raw"]


@dataclass(frozen=True)
class Classifier:
    """A model with its weights, its preprocessing and the names of its classes."""

    name: str
    model: nn.Module
    variables: Variables
    preprocess: Preprocess
    labels: tuple[str, ...]
    step: int | None  # of the checkpoint that the weights come from; None: they are no run's
    matmul_precision: str = "default"  # as in training

    def predict(
        self, images: Iterable[UInt8[np.ndarray, "..."]] | UInt8[np.ndarray, "..."], *, batch_size: int = 64
    ) -> Float32[np.ndarray, "n classes"]:
        """Returns each picture's probabilities over `labels`.

        Args:
            images: uint8 pictures `[h, w]`, `[h, w, 1]`, `[h, w, 3]` or `[h, w, 4]` of any sizes, resized and cropped
                as evaluation does: a list, an iterator (one at a time is held at its full size), or one array
                `[n, h, w]` or `[n, h, w, c]`.
            batch_size: pictures that go through the model at once, at most.

        Raises:
            ValueError: if a picture has another shape or dtype.
        """
        fitted = [self.preprocess.fit(np.asarray(image)) for image in images]
        if not fitted:
            return np.zeros((0, len(self.labels)), np.float32)
        parts = []
        for start in range(0, len(fitted), batch_size):
            batch = np.stack(fitted[start : start + batch_size])
            # Padded to a power of two, so that few programs serve batches of every size.
            padding = (1 << (len(batch) - 1).bit_length()) - len(batch)
            padded = np.pad(batch, ((0, padding), (0, 0), (0, 0), (0, 0)))
            with jax.default_matmul_precision(self.matmul_precision):
                parts.append(np.asarray(self._probabilities(self.variables, padded))[: len(batch)])
        return np.concatenate(parts)

    @cached_property
    def _probabilities(self):
        @jax.jit
        def probabilities(variables: Variables, images: jax.Array) -> jax.Array:
            x = self.preprocess.normalise(images, self.model.dtype)
            logits: Any = self.model.apply(variables, x, train=False)
            return jax.nn.softmax(logits).astype(jnp.float32)

        return probabilities


def load(path: str | Path, checkpoint: str | int = "best", weights: Weights = "ema") -> Classifier:
    """Opens a run directory, or a model whose weights are known by name, on whatever hardware is here.

    Args:
        path: the run's work directory; it may be read-only, and needs neither the config file nor the data. Or a name
            of `list_models()` ("efficientnet_lite0"), or `hf:OWNER/REPO` on the Hugging Face Hub.
        checkpoint: "best" on the validation split (the newest where the run holds none out), "newest", or a step.
        weights: "ema" for the averaged weights ("raw" ones where the run keeps no average), or "raw".

    A run in float64 switches JAX to 64 bits for the whole process.

    Raises:
        UserError: if there is no such run or checkpoint, or it cannot be read.
    """
    if weights not in ("ema", "raw"):
        raise UserError(f"weights must be ema or raw, found {weights!r}")
    if str(path).startswith("hf:") or (str(path) in MODELS and not Path(path).exists()):
        if checkpoint != "best":
            raise UserError(f"{path} has one set of weights, found a wish for checkpoint {checkpoint!r}: leave it out")
        return _load_pretrained(str(path))
    run = open_run(path)
    card = run.read_model()
    step, variables = _read(run, checkpoint, weights)
    return Classifier(
        name=card.name,
        model=build_model(card),
        variables=jax.device_put(variables),
        preprocess=card.preprocess,
        labels=card.class_names,
        step=step,
        matmul_precision=card.matmul_precision,
    )


def _load_pretrained(source: str) -> Classifier:
    found = open_pretrained(None if source.startswith("hf:") else source, source)
    if found.preprocess is None:
        raise UserError(
            f"nothing says how {source} wants its pictures: use jaxnets.load_pretrained, which returns its network"
        )
    return Classifier(
        name=found.name,
        model=found.model,
        variables=jax.device_put(found.variables),
        preprocess=found.preprocess,
        labels=found.labels,
        step=None,
    )


def build_model(card: ModelCard) -> nn.Module:
    """Returns the module that model.json describes."""
    try:
        fields = {**card.fields, "dtype": jnp.dtype(card.fields["dtype"])}
    except (KeyError, TypeError) as error:
        raise UserError(
            f"model.json gives the model no dtype that is known ({error}): restore it from a copy"
        ) from error
    if fields["dtype"] == jnp.float64:
        jax.config.update("jax_enable_x64", True)
    return create_model(card.name, preprocess=card.preprocess, **fields)


def _read(run: RunDirectory, checkpoint: str | int, weights: str) -> tuple[int, Variables]:
    step = choose(run.checkpoints, checkpoint)
    try:
        return step, read_variables(run.checkpoints, step, weights)
    except UserError as error:
        others = [other for other in steps(run.checkpoints) if other != step]
        if checkpoint not in ("best", "newest") or not others:
            raise
        _log.warning("%s; using step %d instead", error, others[-1])
        return others[-1], read_variables(run.checkpoints, others[-1], weights)
