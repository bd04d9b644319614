"""Who is asked: a classifier in JAX, over all devices and hosts, or an ONNX file as it was shipped."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from jaxnets.answer import read_thresholds
from jaxnets.classifier import Classifier
from jaxnets.data.batch import Batch
from jaxnets.data.examples import Examples
from jaxnets.data.pipeline import evaluation_batches
from jaxnets.engine.onnx_file import require
from jaxnets.engine.runtime import OnnxEngine
from jaxnets.errors import UserError
from jaxnets.evaluate.views import Views
from jaxnets.models.forward import Activation, forward
from jaxnets.preprocess import Preprocess
from jaxnets.train.mesh import local_rows, make_mesh, put, replicated, round_up, shard_rows
from jaxnets.trust.refusal import Refusal, read_refusal, read_temperature

_AHEAD = 2  # batches under way on the device

Logits = Callable[[UInt8[np.ndarray, "b h w c"]], Float32[np.ndarray, "b classes"]]


class Asked(Protocol):
    """What an evaluation needs to know of a model; a `Classifier` and an `OnnxModel` say it."""

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def preprocess(self) -> Preprocess: ...
    @property
    def activation(self) -> Activation: ...
    @property
    def several_labels(self) -> bool: ...
    @property
    def thresholds(self) -> tuple[float, ...] | None: ...
    @property
    def temperature(self) -> float | None: ...
    @property
    def refusal(self) -> Refusal | None: ...
    @property
    def step(self) -> int | None: ...


@dataclass(frozen=True, repr=False, kw_only=True)
class OnnxModel:
    """An ONNX file that `jaxnets.export` wrote, in float32 or int8, answered by ONNX Runtime on the CPU."""

    file: Path
    name: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    activation: Activation
    thresholds: tuple[float, ...] | None
    logits: Logits  # that no temperature divides: those of the file, times its own
    metadata: Mapping[str, str]  # all that the file says of itself
    temperature: float | None = None
    refusal: Refusal | None = None
    several_labels: bool = False
    step: int | None = None


def open_onnx(file: Path) -> OnnxModel:
    """Opens an ONNX file.

    Raises:
        UserError: if it cannot be read, or is not one that jaxnets wrote.
    """
    require("onnxruntime")
    import onnxruntime

    if not file.is_file():
        raise UserError(
            f"there is no file {file}: give --model a file that python -m jaxnets.export --format onnx wrote"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own errors have no common class
        raise UserError(f"{file} cannot be opened by ONNX Runtime {onnxruntime.__version__} ({error})") from error
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    foreign = f"{file} is not an ONNX file that jaxnets wrote (its metadata name no labels and preprocess)"
    try:
        labels = tuple(map(str, json.loads(metadata["labels"])))
        preprocess = Preprocess.from_json(json.loads(metadata["preprocess"]))
        thresholds = read_thresholds(json.loads(metadata.get("thresholds", "null")), len(labels))
        activation: Any = metadata["activation"]
        temperature = read_temperature(json.loads(metadata.get("temperature", "null")))
        refusal = read_refusal(json.loads(metadata.get("refusal", "null")))
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{foreign}: export the run with python -m jaxnets.export --format onnx") from error
    takes_uint8 = session.get_inputs()[0].type == "tensor(uint8)"
    outputs = [output.name for output in session.get_outputs()]
    if "logits" not in outputs or activation not in ("softmax", "sigmoid"):
        raise UserError(f"{file} gives no logits (its outputs are {', '.join(outputs)}): export the run again")

    def logits(images: UInt8[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b classes"]:
        x = images if takes_uint8 else _channels_first(preprocess, images)
        found = session.run(["logits"], {session.get_inputs()[0].name: x})[0]
        return found if temperature is None else found * np.float32(temperature)

    return OnnxModel(
        file=file,
        name=metadata.get("model", file.stem),
        labels=labels,
        preprocess=preprocess,
        activation=activation,
        thresholds=thresholds,
        logits=logits,
        metadata=metadata,
        temperature=temperature,
        refusal=refusal,
        several_labels=thresholds is not None,
    )


def _channels_first(preprocess: Preprocess, images: UInt8[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b c h w"]:
    """Returns images as a graph without preprocessing wants them."""
    scale, offset = (numbers.astype(np.float32) for numbers in preprocess.scale_and_offset())
    return np.ascontiguousarray((images.astype(np.float32) * scale - offset).transpose(0, 3, 1, 2))


def logits_of(
    asked: Asked, examples: Examples, *, batch_size: int, threads: int, views: Views | None = None
) -> tuple[Float32[np.ndarray, "n classes"], Bool[np.ndarray, " n"]]:
    """Returns the logits of every example, on every host, and which could be read.

    What it holds at a time is a few batches and the result.
    """
    shape = len(examples), len(asked.labels)
    logits: np.ndarray | None = None
    readable = np.zeros(len(examples), bool)
    host = _host_logits(asked)
    found = (
        _by_host(host, asked.preprocess, examples, batch_size, threads, views)
        if host is not None
        else _by_jax(asked, examples, batch_size, threads, views)
    )
    start = 0
    for answer, mask in found:
        if logits is None:  # a run in float64 answers in it, for comparisons
            logits = np.zeros(shape, np.float64 if answer.dtype == np.float64 else np.float32)
        rows = slice(start, min(start + len(answer), len(examples)))
        logits[rows], readable[rows] = (np.asarray(x)[: rows.stop - start] for x in (answer, mask))
        start = rows.stop
    return np.zeros(shape, np.float32) if logits is None else logits, readable


def _host_logits(asked: Asked) -> Logits | None:
    """Returns the logits of a model that ONNX Runtime answers for; None where JAX does."""
    if isinstance(asked, OnnxModel):
        return asked.logits
    assert isinstance(asked, Classifier)
    if asked.engine_name == "onnx" and isinstance(asked.engine, OnnxEngine):
        return asked.engine.outputs
    return None


def _by_host(
    logits: Logits, preprocess: Preprocess, examples: Examples, batch_size: int, threads: int, views: Views | None
) -> Any:
    left = len(examples)
    for batch in evaluation_batches(examples, batch_size=batch_size, threads=threads):
        images = np.asarray(batch.image)[:left]
        if views is None:
            yield logits(images), batch.mask[:left]
        else:
            seen = (logits(np.ascontiguousarray(view)) for view in views.arrays(images, preprocess))
            average = sum(weight * each for weight, each in zip(views.weights, seen, strict=True))
            yield average, batch.mask[:left]
        left -= len(images)


def _by_jax(asked: Asked, examples: Examples, batch_size: int, threads: int, views: Views | None) -> Any:
    assert isinstance(asked, Classifier)
    mesh = make_mesh()
    everywhere = replicated(mesh)
    batch_size = round_up(batch_size, mesh)

    def step(variables: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        def answer(images: jax.Array) -> jax.Array:
            return forward(asked.model, asked.preprocess, variables, images)

        if views is None:
            logits = answer(batch.image)
        else:
            # One network in the program, however many views there are.
            each = jax.lax.map(answer, jnp.stack(views.arrays(batch.image, asked.preprocess)))
            logits = jnp.tensordot(jnp.asarray(views.weights, each.dtype), each, 1)
        return logits, batch.mask

    compiled = jax.jit(step, out_shardings=everywhere)
    variables = jax.tree.map(lambda x: put(np.asarray(x), everywhere), asked.variables)
    under_way: list[Any] = []
    rows = local_rows(batch_size, mesh)
    with jax.default_matmul_precision(asked.matmul_precision):
        for batch in evaluation_batches(examples, batch_size=batch_size, threads=threads, rows=rows):
            under_way.append(compiled(variables, shard_rows(batch, batch_size, mesh)))
            if len(under_way) > _AHEAD:
                yield under_way.pop(0)
        yield from under_way
