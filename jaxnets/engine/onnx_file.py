"""A classifier as an ONNX file: its graph, and in the file's metadata what is needed to use it elsewhere."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxnets.errors import UserError
from jaxnets.models.conv import plain_convolutions
from jaxnets.preprocess import Preprocess


def onnx_model(
    model: nn.Module,
    variables: Any,
    preprocess: Preprocess,
    *,
    name: str,
    labels: tuple[str, ...],
    normalised_inside: bool,
) -> Any:
    """Returns the `onnx.ModelProto` of a model, for any batch.

    Its input is "image": float32 `[b, c, h, w]`, normalised, or with `normalised_inside` uint8 `[b, h, w, c]` as
    `Preprocess.fit` gives them. Its output is "logits", float32 `[b, classes]`. The metadata hold `model`, `labels` and
    `preprocess`, the latter two as JSON.
    """
    require("onnx")
    from jaxnets.engine.graph import to_onnx

    variables = jax.device_get(variables)
    image = (preprocess.height, preprocess.width, preprocess.channels)
    in_float32 = model.clone(dtype=jnp.float32)

    def logits(x: jax.Array) -> Any:
        return in_float32.apply(variables, x, train=False)

    with plain_convolutions():
        made = to_onnx(logits, image, preprocess=preprocess if normalised_inside else None)
    for key, value in (
        ("model", name),
        ("labels", json.dumps(labels, ensure_ascii=False)),
        ("preprocess", json.dumps(preprocess.to_json())),
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
