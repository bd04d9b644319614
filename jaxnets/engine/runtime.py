"""The engines: each takes fitted uint8 images to probabilities."""

import importlib.util
import logging
import zlib
from pathlib import Path
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float32, UInt8

from jaxnets.cache import cache_directory
from jaxnets.cores import cores
from jaxnets.engine.onnx_file import onnx_model, require, write_bytes
from jaxnets.errors import UserError
from jaxnets.models.cpu.inference import in_blocks
from jaxnets.preprocess import Preprocess

_log = logging.getLogger(__name__)

EngineName = Literal["auto", "jax", "onnx"]

_GRAPH = 2  # which graph of a model this version makes; graphs of others are made anew


class Engine(Protocol):
    name: str
    threads: int | None  # that a call keeps busy, where calls may run side by side; None: they take turns

    def probabilities(self, images: UInt8[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b classes"]:
        """Returns the probabilities of images that `Preprocess.fit` has brought to size."""
        ...


class JaxEngine:
    """The model as it was trained, on whatever device JAX has."""

    name = "jax"
    threads: int | None = None

    def __init__(self, model: nn.Module, variables: Any, preprocess: Preprocess, matmul_precision: str) -> None:
        self._variables = jax.device_put(variables)
        self._precision = matmul_precision

        def probabilities(variables: Any, images: jax.Array) -> jax.Array:
            def logits(images: jax.Array) -> Any:
                return model.apply(variables, preprocess.normalise(images, model.dtype), train=False)

            return jax.nn.softmax(in_blocks(logits, images)).astype(jnp.float32)

        self._compiled = jax.jit(probabilities)

    def probabilities(self, images: UInt8[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b classes"]:
        # Padded to a power of two, so that few programs serve batches of every size.
        padding = (1 << (len(images) - 1).bit_length()) - len(images)
        padded = np.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0)))
        with jax.default_matmul_precision(self._precision):
            return np.asarray(self._compiled(self._variables, padded))[: len(images)]


class OnnxEngine:
    """ONNX Runtime on the CPU, with as many threads as there are cores unless said otherwise."""

    name = "onnx"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        require("onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        self.threads: int | None = threads or cores()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own errors have no common class
            raise UserError(
                f"{path} cannot be opened by ONNX Runtime ({error}): remove it, to have it made anew"
            ) from error

    def probabilities(self, images: UInt8[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b classes"]:
        (logits,) = self._session.run(None, {"image": images})
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)


def open_engine(
    wanted: EngineName,
    model: nn.Module,
    variables: Any,
    preprocess: Preprocess,
    *,
    name: str,
    labels: tuple[str, ...],
    matmul_precision: str,
    folder: Path | None,
    threads: int | None = None,
) -> Engine:
    """Returns the engine that is wanted; "auto" is ONNX Runtime on a CPU where it is installed, and JAX elsewhere.

    The graph for ONNX Runtime is made once and kept in `folder`, or in the user's cache where there is none that can be
    written to. Its name holds a checksum of the weights. It runs on so many threads, None for all cores.

    Raises:
        UserError: if the wanted engine is not installed.
    """
    if wanted not in ("auto", "jax", "onnx"):
        raise UserError(f"the engine must be auto, jax or onnx, found {wanted!r}")
    if wanted == "onnx":
        require("onnx")
        require("onnxruntime")
    possible = importlib.util.find_spec("onnx") is not None and importlib.util.find_spec("onnxruntime") is not None
    # The graph is float32: a model that computes otherwise answers as it does in JAX.
    usual = jax.default_backend() == "cpu" and model.dtype == jnp.float32
    if wanted == "jax" or (wanted == "auto" and not (possible and usual)):
        return JaxEngine(model, variables, preprocess, matmul_precision)
    file = f"{name}-{_checksum(model, variables, preprocess):08x}.onnx"
    folders = [candidate for candidate in (folder, cache_directory() / "engines") if candidate is not None]
    found = next((candidate / file for candidate in folders if (candidate / file).is_file()), None)
    if found is None:
        made = onnx_model(model, variables, preprocess, name=name, labels=labels, normalised_inside=True)
        found = _keep(made.SerializeToString(), [candidate / file for candidate in folders])
    return OnnxEngine(found, threads)


def _keep(content: bytes, places: list[Path]) -> Path:
    """Writes to the first place that can be written to."""
    for place in places[:-1]:
        try:
            write_bytes(place, content)
            return place
        except UserError as error:
            _log.info("%s", error)
    write_bytes(places[-1], content)
    return places[-1]


def _checksum(model: nn.Module, variables: Any, preprocess: Preprocess) -> int:
    checksum = zlib.crc32(repr((_GRAPH, model, preprocess)).encode())
    for leaf in jax.tree.leaves(variables):
        checksum = zlib.crc32(np.ascontiguousarray(leaf).data, checksum)
    return checksum
