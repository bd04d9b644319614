"""The engines: each takes fitted uint8 images to probabilities."""

import importlib.util
import logging
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float32, UInt8

from jaxnets.answer import activated
from jaxnets.cache import cache_directory
from jaxnets.cores import cores
from jaxnets.engine.onnx_file import onnx_model, require, write_bytes
from jaxnets.errors import UserError
from jaxnets.models.cpu.inference import in_blocks
from jaxnets.models.forward import Activation, forward, probabilities, profile
from jaxnets.preprocess import Preprocess

_log = logging.getLogger(__name__)

EngineName = Literal["auto", "jax", "onnx"]

_GRAPH = 5  # which graph of a model this version makes; graphs of others are made anew


class Computed(NamedTuple):
    """What an engine computes of images in one pass."""

    logits: Float32[np.ndarray, "b classes"]  # that no temperature divides
    profile: Float32[np.ndarray, "b f"] | None = None  # `models.forward.profile`
    embedding: Float32[np.ndarray, "b e"] | None = None  # what the head sees


class Engine(Protocol):
    name: str
    threads: int | None  # that a call keeps busy, where calls may run side by side; None: they take turns

    def probabilities(self, images: UInt8[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b classes"]:
        """Returns the probabilities of images that `Preprocess.fit` has brought to size."""
        ...

    def computed(self, images: UInt8[np.ndarray, "b h w c"]) -> Computed:
        """Returns the logits, and of profiles and embeddings those that it was opened for."""
        ...

    def shrink(self, images: UInt8[np.ndarray, "b h w c"]) -> None:
        """Gives memory back that batches larger than this one have taken."""
        ...


class JaxEngine:
    """The model as it was trained, on whatever device JAX has."""

    name = "jax"
    threads: int | None = None

    def __init__(
        self,
        model: nn.Module,
        variables: Any,
        preprocess: Preprocess,
        matmul_precision: str,
        activation: Activation = "softmax",
        temperature: float | None = None,
    ) -> None:
        self._variables = jax.device_put(variables)
        self._precision = matmul_precision
        self._model = model

        def answers(variables: Any, images: jax.Array) -> jax.Array:
            logits = in_blocks(lambda images: forward(model, preprocess, variables, images), images)
            return probabilities(logits, activation, temperature).astype(jnp.float32)

        def everything(variables: Any, images: jax.Array) -> jax.Array:
            def of_block(images: jax.Array) -> jax.Array:
                found = forward(model, preprocess, variables, images, method="outputs")
                each = found.logits, found.embedding, profile(found)
                return jnp.concatenate([x.astype(jnp.float32) for x in each], 1)

            return in_blocks(of_block, images)

        def embedding(variables: Any, images: jax.Array) -> jax.Array:
            return forward(model, preprocess, variables, images, method="embed")

        self._probabilities, self._everything = jax.jit(answers), jax.jit(everything)
        self._embedding = embedding
        self._features: int | None = None  # of an embedding, once it is known

    def probabilities(self, images: UInt8[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b classes"]:
        return self._run(self._probabilities, images)

    def computed(self, images: UInt8[np.ndarray, "b h w c"]) -> Computed:
        found = self._run(self._everything, images)
        classes = self._model.num_classes
        if self._features is None:
            self._features = jax.eval_shape(self._embedding, self._variables, images).shape[1]
        logits, embedding, profiles = np.split(found, [classes, classes + self._features], 1)
        return Computed(logits, profiles, embedding)

    def shrink(self, images: UInt8[np.ndarray, "b h w c"]) -> None:
        pass  # XLA frees what a call took

    def _run(self, program: Callable[..., jax.Array], images: UInt8[np.ndarray, "b h w c"]) -> np.ndarray:
        # Padded to a power of two, so that few programs serve batches of every size.
        padding = (1 << (len(images) - 1).bit_length()) - len(images)
        padded = np.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0)))
        with jax.default_matmul_precision(self._precision):
            return np.asarray(program(self._variables, padded))[: len(images)]


class OnnxEngine:
    """ONNX Runtime on the CPU, with as many threads as there are cores unless said otherwise.

    `source` is a graph whose normalisation is inside, a file or its bytes. Its first output are logits, as a rule,
    and its second the profiles (`models.forward.profile`), if there is one.
    """

    name = "onnx"

    def __init__(
        self,
        source: Path | bytes,
        threads: int | None = None,
        activation: Activation = "softmax",
        temperature: float | None = None,
    ) -> None:
        require("onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        self.threads: int | None = threads or cores()
        self._activation, self._temperature = activation, temperature
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        graph = str(source) if isinstance(source, Path) else source
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own errors have no common class
            what = source if isinstance(source, Path) else "the model's graph"
            raise UserError(
                f"{what} cannot be opened by ONNX Runtime {onnxruntime.__version__} ({error}): let JAX answer "
                f"(--engine jax), or update onnxruntime"
            ) from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def probabilities(self, images: UInt8[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b classes"]:
        return activated(self.outputs(images), self._activation, self._temperature)

    def outputs(self, images: UInt8[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b numbers"]:
        """Returns what the graph gives first: logits, as a rule."""
        (outputs,) = self._session.run(self._outputs[:1], {"image": images})
        return outputs

    def computed(self, images: UInt8[np.ndarray, "b h w c"]) -> Computed:
        names = {"profile", "embedding"} & set(self._outputs)
        found = dict(zip(self._outputs, self._session.run(self._outputs, {"image": images}), strict=True))
        return Computed(found[self._outputs[0]], **{name: found[name] for name in names})

    def shrink(self, images: UInt8[np.ndarray, "b h w c"]) -> None:
        import onnxruntime

        # Its arena keeps what the largest batch so far took: of 32 images of 224×224 some 400 MiB.
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._session.run(self._outputs, {"image": images}, options)


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
    activation: Activation = "softmax",
    temperature: float | None = None,
    profiles: bool = False,
    embeddings: bool = False,
) -> Engine:
    """Returns the engine that is wanted; "auto" is ONNX Runtime on a CPU where it is installed, and JAX elsewhere.

    The graph for ONNX Runtime is made once and kept in `folder`, or in the user's cache where there is none that can be
    written to. Its name holds a checksum of the weights. It runs on so many threads, None for all cores. With "auto" a
    model that cannot be such a graph is answered by JAX, with a warning. `temperature` divides the logits before they
    become probabilities; with `profiles` and `embeddings` these are computed beside the logits.

    Raises:
        UserError: if the wanted engine is not installed, or cannot run the model.
    """
    if wanted not in ("auto", "jax", "onnx"):
        raise UserError(f"the engine must be auto, jax or onnx, found {wanted!r}")
    if wanted == "onnx":
        require("onnx")
        require("onnxruntime")
    possible = importlib.util.find_spec("onnx") is not None and importlib.util.find_spec("onnxruntime") is not None
    # The graph is float32: a model that computes otherwise answers as it does in JAX.
    usual = jax.default_backend() == "cpu" and model.dtype == jnp.float32
    if wanted == "onnx" or (wanted == "auto" and possible and usual):
        beside: list[Literal["profile", "embedding"]] = ["profile"] if profiles else []
        if embeddings:
            beside.append("embedding")

        def make() -> bytes:
            made = onnx_model(
                model,
                variables,
                preprocess,
                name=name,
                labels=labels,
                activation=activation,
                normalised_inside=True,
                outputs=("logits", *beside),
            )
            return made.SerializeToString()

        kind = "".join(f"-{output}" for output in beside)
        file = f"{name}-{checksum(model, variables, preprocess):08x}{kind}.onnx"
        folders = [candidate for candidate in (folder, cache_directory() / "engines") if candidate is not None]
        try:
            return _open_graph([candidate / file for candidate in folders], make, threads, activation, temperature)
        except UserError as error:
            if wanted == "onnx":
                raise
            _warn_once(f"{name} is answered by JAX, more slowly: {error}")
    return JaxEngine(model, variables, preprocess, matmul_precision, activation, temperature)


@cache
def _warn_once(message: str) -> None:
    _log.warning("%s", message)


def _open_graph(
    paths: list[Path],
    make: Callable[[], bytes],
    threads: int | None,
    activation: Activation,
    temperature: float | None,
) -> OnnxEngine:
    """Opens the graph that is kept at one of the paths, or makes it and keeps it where it can."""
    kept = next((path for path in paths if path.is_file()), None)
    if kept is not None:
        try:
            return OnnxEngine(kept, threads, activation, temperature)
        except UserError as error:
            _log.info("%s; the graph is made anew", error)
    content = make()
    engine = OnnxEngine(content, threads, activation, temperature)
    _keep(content, [kept] if kept is not None else paths)
    return engine


def _keep(content: bytes, paths: list[Path]) -> None:
    """Writes to the first path that can be written to; without one the graph is made again the next time."""
    for path in paths:
        try:
            write_bytes(path, content)
        except UserError as error:
            _log.info("%s", error)
        else:
            return


def checksum(model: nn.Module, variables: Any, preprocess: Preprocess) -> int:
    """Returns what tells models of other weights, other fields or other preprocessing apart: 32 bits."""
    found = zlib.crc32(repr((_GRAPH, model, preprocess)).encode())
    for leaf in jax.tree.leaves(variables):
        found = zlib.crc32(np.ascontiguousarray(leaf).data, found)
    return found
