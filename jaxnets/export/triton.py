"""A model repository for NVIDIA's Triton Inference Server, of an ONNX file.

DIR/NAME/config.pbtxt    inputs, outputs and batching, as Triton's ModelConfig
DIR/NAME/labels.txt      a class a line, by which Triton's classification extension names the outcome
DIR/NAME/README.md       what a client does before and after
DIR/NAME/1/model.onnx    the export as `engine.onnx_file.onnx_model` makes it
"""

import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnx

from jaxnets.engine.onnx_file import write_bytes
from jaxnets.errors import UserError
from jaxnets.preprocess import Preprocess

CONFIG, LABELS, README, MODEL = "config.pbtxt", "labels.txt", "README.md", "1/model.onnx"
MAX_BATCH = 32
_PREFERRED = (8, 16, 32)  # batches that are sent off at once; smaller ones after the delay
_DELAY = 2000  # µs that a request waits for others
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # as the service's, and whole in Triton's addresses
_SAID = ("activation", "temperature", "thresholds", "refusal", "preprocess")  # metadata that a client may ask for
_TYPES = {onnx.TensorProto.FLOAT: "TYPE_FP32", onnx.TensorProto.UINT8: "TYPE_UINT8"}


def check_repository(folder: Path, name: str) -> None:
    """Refuses a place or a name that Triton would not find a model under, before the work for it is done.

    Raises:
        UserError: that says what is there.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"Triton's models have names of letters, digits, '.', '_' and '-', found {name!r}: give --model NAME=MODEL"
        )
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f"--out {folder} is a file: give a folder, which is made if it is not there")
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    if os.path.lexists(folder / name):
        raise UserError(
            f"{folder / name} is there already: remove it, give another --out, or another name with --model NAME=MODEL"
        )
    others = [path.name for path in inside if path.is_dir() and not (path / CONFIG).is_file()]
    if others:
        raise UserError(
            f"--out {folder} holds folders that are no models of Triton's ({', '.join(others[:3])}), and Triton would "
            f"refuse them: give a folder of its own, or one whose folders hold a {CONFIG}"
        )


def write_repository(folder: Path, onnx_file: bytes, name: str) -> int:
    """Writes a model into a repository, whole or not at all, and returns its size in bytes.

    Raises:
        UserError: if it cannot be written.
    """
    files = repository(onnx_file, name)
    unfinished = folder / f".{name}.{os.getpid()}"
    try:
        for path, content in files.items():
            write_bytes(unfinished / path, content)
        unfinished.rename(folder / name)
    except OSError as error:
        raise UserError(f"{folder / name} cannot be written ({error.strerror}): give another --out") from error
    finally:
        with suppress(OSError):
            shutil.rmtree(unfinished)
    return sum(map(len, files.values()))


def repository(onnx_file: bytes, name: str) -> dict[str, bytes]:
    """Returns the files of a model in a repository, by their paths.

    Args:
        onnx_file: as `engine.onnx_file.onnx_model` makes it, for any batch.
        name: of the model, and of the folder that they lie in.
    """
    graph = onnx.load_from_string(onnx_file)
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    labels = [_line(label) for label in json.loads(metadata["labels"])]
    return {
        CONFIG: _config(graph.graph, metadata, name).encode(),
        LABELS: "".join(f"{label}\n" for label in labels).encode(),
        README: _readme(graph.graph, metadata, name).encode(),
        MODEL: onnx_file,
    }


def _config(graph: Any, metadata: dict[str, str], name: str) -> str:
    """Returns Triton's ModelConfig in protobuf's text form. Its `dims` are those of one image: it adds the batch."""
    parts = [
        f"name: {json.dumps(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {MAX_BATCH}",
        *(_tensor("input", value) for value in graph.input),
        *(_tensor("output", value) for value in graph.output),
        f"dynamic_batching {{\n  preferred_batch_size: [ {', '.join(map(str, _PREFERRED))} ]\n"
        f"  max_queue_delay_microseconds: {_DELAY}\n}}",
        "instance_group [ { count: 1 kind: KIND_AUTO } ]",
        *(
            f"parameters {{\n  key: {json.dumps(key)}\n  value {{ string_value: {json.dumps(metadata[key])} }}\n}}"
            for key in _SAID
            if key in metadata
        ),
    ]
    return "\n".join(parts) + "\n"


def _tensor(kind: str, value: Any) -> str:
    dims = _dims(value)
    lines = [f"name: {json.dumps(value.name)}", f"data_type: {_TYPES[value.type.tensor_type.elem_type]}"]
    if dims:
        lines.append(f"dims: [ {', '.join(map(str, dims))} ]")
    else:  # a number for each image: Triton has no empty dims, and shows [b] as [b, 1]
        lines += ["dims: [ 1 ]", "reshape { shape: [ ] }"]
    if value.name == "logits":
        lines.append(f"label_filename: {json.dumps(LABELS)}")
    return f"{kind} {{\n" + "".join(f"  {line}\n" for line in lines) + "}"


def _dims(value: Any) -> Sequence[int]:
    """Returns a tensor's shape without the batch."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]]


def _line(label: str) -> str:
    """Returns a label as one line: Triton counts lines."""
    return " ".join(label.splitlines())


def _readme(graph: Any, metadata: dict[str, str], name: str) -> str:
    """Returns what a client has to know, in Markdown."""
    known = Preprocess.from_json(json.loads(metadata["preprocess"]))
    inside = graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    shape = ", ".join(map(str, ("b", *_dims(graph.input[0]))))
    return f"""# {name} ({metadata["model"]})

Input `image`: {"uint8" if inside else "float32"} `[{shape}]`. The client makes it of each image, outside of the model:

1. Decode it to 8 bits, {"RGB" if known.channels == 3 else "grey"}; lay what is transparent over white.
2. By {known.interpolation} interpolation, antialiased as Pillow's, {_fitted(known)}.
3. {_normalised(known, inside)}

In Python `jaxnets.load(MODEL).preprocess.fit(image)` does 1 and 2. Programs find the same in the parameter `preprocess`
of `/v2/models/{name}/config`.

{_outputs(graph, metadata)}
"""


def _fitted(known: Preprocess) -> str:
    (rows, columns), size = known.resized_sides, f"{known.height} × {known.width}"
    return {
        "crop": f"resize it until it just covers {rows} × {columns} pixels (height × width), with its aspect, and cut "
        f"{size} out of the centre",
        "pad": f"resize it until it just fits into {rows} × {columns} pixels (height × width), with its aspect, cut "
        f"{size} out of the centre, and fill what is not covered with the colour {list(known.fill)}",
        "squeeze": f"resize it to {rows} × {columns} pixels (height × width), whatever its aspect, and cut {size} out "
        "of the centre",
    }[known.fitting]


def _normalised(known: Preprocess, inside: bool) -> str:
    if inside:
        return "Send the pixels as they are, channels last: normalisation is inside the model."
    return (
        f"Divide by 255, subtract {list(known.mean)}, divide by {list(known.std)} (by channel), and bring the channels "
        "to the front."
    )


def _outputs(graph: Any, metadata: dict[str, str]) -> str:
    several = metadata["activation"] == "sigmoid"
    logits, *scores = graph.output
    said = [
        f"- `{logits.name}`, float32 `[b, {_dims(logits)[0]}]`: their {metadata['activation']} is the probabilities. "
        f"Triton's classification extension (`class_count`) names the largest by `{LABELS}`, with the logits as values."
    ]
    if several:
        said.append("- An image has the labels whose probability is above their number in the parameter `thresholds`.")
    if "temperature" in metadata:
        said.append("- The logits are divided by the temperature already.")
    said += [
        f"- `{score.name}`, float32 `[b, 1]`: above the bound in the parameter `refusal` an image is none of these."
        for score in scores
    ]
    if "refusal" in metadata:
        said.append("- The parameter `refusal` also says below which probability the answer is none of these, if any.")
    return "\n".join(said)
