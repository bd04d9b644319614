"""The page: one file that holds model, labels, preprocessing and ONNX Runtime, and needs no server."""

import gzip
import json
from base64 import b64encode
from html import escape
from importlib.resources import files
from typing import Any

import onnx

from jaxnets.export.web.runtime import VERSION, Runtime

_READ = ("labels", "preprocess", "thresholds", "refusal")  # metadata that are JSON


def page(onnx_file: bytes, runtime: Runtime) -> bytes:
    """Returns the HTML file; it has the metadata of the graph's own.

    Args:
        onnx_file: a graph that takes uint8 `[b, h, w, c]`, as `engine.onnx_file.onnx_model` makes it.
    """
    metadata = {entry.key: entry.value for entry in onnx.load_from_string(onnx_file).metadata_props}
    card: dict[str, Any] = {"thresholds": None, "refusal": None, **metadata}
    card |= {key: json.loads(metadata[key]) for key in _READ if key in metadata}
    p, labels = card["preprocess"], card["labels"]
    about = (
        f"{len(labels)} {'labels' if card['thresholds'] else 'classes'}; images of {p['height']} × {p['width']} pixels."
    )
    parts = {
        "title": escape(metadata["model"]),
        "about": escape(about),
        "version": VERSION,
        "card": json.dumps(card).replace("<", "\\u003c"),
        "model": _packed(onnx_file),
        "runtime": _packed(runtime.code),
        "wasm": _packed(runtime.wasm),
        **{name: _file(f"{name}.js") for name in ("fit", "answer", "page")},
    }
    head, *rest = _file("page.html").split("{{")
    return "".join([head, *(parts[name] + tail for name, _, tail in (part.partition("}}") for part in rest))]).encode()


def _file(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _packed(content: bytes) -> str:
    """Returns bytes as they stand in a page: gzipped, in Base64."""
    return b64encode(gzip.compress(content, 6, mtime=0)).decode()
