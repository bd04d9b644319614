"""A classifier as an ONNX file: its graph, and in the file's metadata what is needed to use it elsewhere."""

import dataclasses
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np
from flax import linen as nn

from jaxnets.errors import UserError
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.forward import Activation, forward, profile
from jaxnets.preprocess import Preprocess
from jaxnets.trust.outliers import Spread
from jaxnets.trust.refusal import Refusal

if TYPE_CHECKING:
    from jaxnets.engine.precision import GraphDtype


def onnx_model(
    model: nn.Module,
    variables: Any,
    preprocess: Preprocess,
    *,
    name: str,
    labels: tuple[str, ...],
    activation: Activation,
    normalised_inside: bool,
    thresholds: Sequence[float] | None = None,
    outputs: Sequence[Literal["logits", "embedding", "profile"]] = ("logits",),
    temperature: float | None = None,
    refusal: Refusal | None = None,
    spread: Spread | None = None,
    dtype: "GraphDtype" = "float32",
) -> Any:
    """Returns the `onnx.ModelProto` of a model, for any batch.

    Its input is "image": float32 `[b, c, h, w]`, normalised, or with `normalised_inside` uint8 `[b, h, w, c]` as
    `Preprocess.fit` gives them. Its outputs are "logits", float32 `[b, classes]`, "embedding", `[b, f]`: the pooled
    vector that the head sees, and "profile" (`models.forward.profile`), those of them that are asked for. The metadata
    hold `model`, `activation` (which makes the logits probabilities),
    `labels` and `preprocess`, the latter two as JSON. Where an image may have several labels, they hold also their
    `thresholds`, as JSON: an image has those whose probability is above it.

    A `temperature` has divided the logits that the graph gives, so that whoever turns them into probabilities gets
    calibrated ones; the metadata say it. Of a `refusal` the metadata hold the bounds, as JSON, and the graph has
    the outputs "energy" and "distance", float32 `[b]`, where there are bounds for them: an image above one of these, or
    whose most probable class is below `probability`, is none of these.

    With another `dtype` the network's weights are in that (`engine.precision`), and inputs and outputs as they are.

    Raises:
        Unwritable: if the model does what the writer knows no nodes for.
    """
    require("onnx")
    from jaxnets.engine.graph import to_onnx
    from jaxnets.engine.precision import in_precision
    from jaxnets.engine.scores import PROFILE, add_scores
    from jaxnets.engine.writer import Unwritable

    variables = jax.device_get(variables)
    image = (preprocess.height, preprocess.width, preprocess.channels)
    in_float32 = model.clone(dtype=np.float32)

    looked_at = refusal.scores if refusal is not None else ()
    made_of = (*outputs, PROFILE) if "distance" in looked_at and PROFILE not in outputs else tuple(outputs)

    method: Literal["outputs", "embed", "__call__"] = "outputs"
    if made_of in (("logits",), ("embedding",)):
        method = "__call__" if made_of == ("logits",) else "embed"

    def chosen(found: Any) -> Any:
        given = {made_of[0]: found}
        if method == "outputs":
            given = {"logits": found.logits, "embedding": found.embedding, PROFILE: profile(found)}
        if temperature is not None and "logits" in made_of:
            given["logits"] = given["logits"] / temperature
        return tuple(given[name] for name in made_of)

    def of_images(images: jax.Array) -> Any:
        return chosen(forward(in_float32, preprocess, variables, images, method=method))

    def of_normalised(x: jax.Array) -> Any:
        return chosen(in_float32.apply(variables, x, train=False, method=method))

    try:
        with plain_convolutions():
            if normalised_inside:
                made = to_onnx(of_images, image, np.uint8, made_of)
            else:
                made = to_onnx(of_normalised, image, np.float32, made_of)
    except Unwritable as error:
        raise Unwritable(
            f"{name} cannot be written as an ONNX graph, which has no counterpart for {error}: "
            f"let JAX answer (--engine jax), or export it with --format stablehlo"
        ) from error
    made = in_precision(made, dtype)
    if refusal is not None:
        add_scores(made, refusal, spread, activation, temperature)
    for key, value in (
        ("model", name),
        ("activation", activation),
        ("labels", json.dumps(labels, ensure_ascii=False)),
        ("preprocess", json.dumps(preprocess.to_json())),
        *([] if thresholds is None else [("thresholds", json.dumps(list(thresholds)))]),
        *([] if temperature is None else [("temperature", repr(temperature))]),
        *([] if refusal is None else [("refusal", json.dumps(dataclasses.asdict(refusal)))]),
    ):
        entry = made.metadata_props.add()
        entry.key, entry.value = key, value
    return made


def write_bytes(path: Path, content: bytes) -> None:
    """Writes under another name and renames, so that a reader never sees half a file.

    Raises:
        UserError: if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise UserError(f"{path} cannot be written ({error.strerror}): make room or permission for it") from error


def check_writable(path: Path) -> None:
    """Refuses a file that cannot be written, before the work for it is done, as far as permissions tell.

    Raises:
        UserError: that says why.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the name of a file to write")
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"{path} cannot be written to ({existing} is read-only or no folder): give another --out")


def require(package: str, extra: str = "export") -> None:
    """Refuses to go on without an optional package.

    Raises:
        UserError: that says how to install it.
    """
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise UserError(f"{package} is not installed, and this needs it: pip install 'jaxnets[{extra}]'")
