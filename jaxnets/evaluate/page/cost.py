"""What the model costs: its size, its arithmetic, its memory, and how long it takes on this machine."""

import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.cores import cores
from jaxnets.evaluate.asked import OnnxModel
from jaxnets.evaluate.page.section import Section, paragraph, table
from jaxnets.evaluate.run import Evaluation
from jaxnets.models.describe import size
from jaxnets.models.forward import forward

_SECONDS = 1.0  # that each measurement takes, about
_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Cost:
    parameters: int | None  # numbers that training changes
    multiply_adds: int | None  # of one image, as papers count them
    weights_bytes: int | None  # in memory; of an ONNX file, its size
    activations_bytes: int | None  # what XLA needs beside the weights for one image
    latency_ms: float  # of one image, the median
    images_per_second: float  # in batches of 32
    engine: str
    device: str


def measure(evaluation: Evaluation) -> Cost:
    """Returns what the model costs; latency is without reading and resizing images."""
    asked, classifier = evaluation.asked, evaluation.classifier
    p = asked.preprocess
    parameters = multiply_adds = weights = activations = None
    if classifier is not None:
        parameters, multiply_adds = size(classifier.model, p.height, p.width, p.channels)
        weights = sum(leaf.nbytes for leaf in jax.tree.leaves(classifier.variables))
    answer: Callable[[np.ndarray], Any]
    if isinstance(asked, OnnxModel):
        answer, engine, device = asked.logits, "ONNX Runtime", processor()
        weights = asked.file.stat().st_size
    else:
        assert classifier is not None
        activations = _activations(evaluation)
        answer = classifier.engine.probabilities
        engine = "ONNX Runtime" if classifier.engine.name == "onnx" else "JAX"
        device = processor() if engine != "JAX" or jax.default_backend() == "cpu" else jax.devices()[0].device_kind
    one, many = (np.zeros((n, p.height, p.width, p.channels), np.uint8) for n in (1, _BATCH))
    return Cost(
        parameters=parameters,
        multiply_adds=multiply_adds,
        weights_bytes=weights,
        activations_bytes=activations,
        latency_ms=1000 * _median(lambda: answer(one)),
        images_per_second=_BATCH / _median(lambda: answer(many)),
        engine=engine,
        device=device,
    )


def _activations(evaluation: Evaluation) -> int | None:
    """Returns the memory that the compiled forward pass of one image needs for what lies between its layers."""
    classifier = evaluation.classifier
    assert classifier is not None
    p = classifier.preprocess

    def one(variables: Any, images: jax.Array) -> jax.Array:
        return forward(classifier.model, p, variables, images)

    image = jax.ShapeDtypeStruct((1, p.height, p.width, p.channels), jnp.uint8)
    # Nobody runs it, and on a CPU the buffers are assigned before its code is made quick, which takes the most time.
    options: dict[str, str | bool] | None = (
        {"xla_backend_optimization_level": "0"} if jax.default_backend() == "cpu" else None
    )
    analysis = jax.jit(one).lower(classifier.variables, image).compile(compiler_options=options).memory_analysis()
    return None if analysis is None else int(analysis.temp_size_in_bytes)


def _median(call: Callable[[], Any]) -> float:
    """Returns the median duration of a call in seconds, after one that is not counted."""
    call()
    durations: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(durations) < 3 or (time.perf_counter() < end and len(durations) < 200):
        start = time.perf_counter()
        call()
        durations.append(time.perf_counter() - start)
    return float(np.median(durations))


def processor() -> str:
    """Returns what the processor calls itself, and how many of its cores may be used."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = [line for line in file if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    except OSError:
        pass
    return f"{name}, {cores()} core{'s' if cores() != 1 else ''}"


def cost(measured: Cost) -> Section:
    def shown(value: float | None, text: Callable[[Any], str]) -> str:
        return "–" if value is None else text(value)

    rows = [
        ("parameters", shown(measured.parameters, lambda n: f"{n:,}")),
        ("multiply-adds of one image", shown(measured.multiply_adds, in_words)),
        ("weights", shown(measured.weights_bytes, in_bytes)),
        ("memory between layers, one image", shown(measured.activations_bytes, in_bytes)),
        ("one image takes", f"{measured.latency_ms:.2f} ms"),
        (f"in batches of {_BATCH}", f"{measured.images_per_second:,.0f} images a second"),
    ]
    html = table(("", "cost"), rows, numbers=(1,))
    html += paragraph(
        f"Times are medians on this machine ({measured.device}, {measured.engine}), without reading and resizing "
        "images.",
        "dim",
    )
    return Section("Cost", html, "cost")


def as_json(measured: Cost) -> dict[str, Any]:
    return asdict(measured)


def in_words(count: float) -> str:
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.2f} {name}"
    return f"{count:.0f}"


def in_bytes(count: float) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"
