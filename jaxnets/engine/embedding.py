"""The vectors that a model's head sees, by whatever computes them quickest here."""

import importlib.util
import logging
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float32, UInt8

from jaxnets.engine.onnx_file import onnx_model
from jaxnets.engine.runtime import OnnxEngine
from jaxnets.errors import UserError
from jaxnets.models.cpu.inference import in_blocks
from jaxnets.models.forward import forward
from jaxnets.preprocess import Preprocess

_log = logging.getLogger(__name__)


class Embedder(Protocol):
    name: str
    batch_size: int  # images of a call that are quickest
    # Whether calls may run side by side, each on the thread that makes it; else one call keeps the device busy.
    side_by_side: bool

    def embed(self, images: UInt8[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b f"]:
        """Returns the vectors of images that `Preprocess.fit` has brought to size."""
        ...


class OnnxEmbedder:
    """ONNX Runtime with one thread for each call.

    As many calls as there are cores waste less than one call on all of them, and a thread that waits for a file or
    decodes it keeps no other from computing. Few images at a time stay in the cache.
    """

    name = "onnx"
    batch_size = 4
    side_by_side = True

    def __init__(self, graph: bytes) -> None:
        self._engine = OnnxEngine(graph, threads=1)

    def embed(self, images: UInt8[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b f"]:
        return self._engine.outputs(images)


class JaxEmbedder:
    """The model as it was trained, on the first of JAX's devices."""

    name = "jax"
    side_by_side = False

    def __init__(self, model: nn.Module, variables: Any, preprocess: Preprocess, matmul_precision: str) -> None:
        self.batch_size = 32 if jax.default_backend() == "cpu" else 256
        self._variables = jax.device_put(variables)
        self._precision = matmul_precision

        def vectors(variables: Any, images: jax.Array) -> jax.Array:
            found = in_blocks(lambda block: forward(model, preprocess, variables, block, method="embed"), images)
            return found.astype(jnp.float32)

        self._compiled = jax.jit(vectors)

    def embed(self, images: UInt8[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b f"]:
        # Always as many, so that there is one program.
        padded = np.pad(images, ((0, self.batch_size - len(images)), (0, 0), (0, 0), (0, 0)))
        with jax.default_matmul_precision(self._precision):
            return np.asarray(self._compiled(self._variables, padded))[: len(images)]


def open_embedder(
    model: nn.Module, variables: Any, preprocess: Preprocess, *, name: str, matmul_precision: str = "default"
) -> Embedder:
    """Returns ONNX Runtime on a CPU where it is installed and the model can be such a graph, and JAX elsewhere."""
    possible = importlib.util.find_spec("onnx") is not None and importlib.util.find_spec("onnxruntime") is not None
    if possible and jax.default_backend() == "cpu" and jnp.dtype(model.dtype) == jnp.float32:
        try:
            made = onnx_model(
                model,
                variables,
                preprocess,
                name=name,
                labels=(),
                activation="softmax",
                normalised_inside=True,
                outputs=("embedding",),
            )
            return OnnxEmbedder(made.SerializeToString())
        except UserError as error:
            _log.warning("the features of %s are computed by JAX, more slowly: %s", name, error)
    return JaxEmbedder(model, variables, preprocess, matmul_precision)
