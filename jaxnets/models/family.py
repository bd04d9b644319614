"""What a family of models says of itself. It is all that the rest of jaxnets knows of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flax import linen as nn

from jaxnets.errors import UserError
from jaxnets.preprocess import Preprocess

Variables = dict[str, Any]  # {"params": …, "batch_stats": …}
Path = tuple[
    str, ...
]  # of a layer, or of a leaf, under `params` or `batch_stats`: ("stage1_block2", "conv1", "kernel")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model that `create_model` knows."""

    fields: Mapping[str, Any]  # what makes the family's network the model of that name
    preprocess: Preprocess | None = None  # as its family was evaluated; None: there is no such convention
    weights: str | None = None  # the source that `jaxnets.load(name)` takes, as load_pretrained knows it


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where each of a network's parameters lies in the files of a library, and what that library's habits are."""

    name: str  # of the library
    mark: str  # a key that tells it from the other layouts
    module_key: Callable[[Any, Path], str]  # (model, path of a layer) -> key of that layer
    is_convolution: Callable[[Any, Path], bool] = lambda model, path: False  # a dense layer that is a 1×1 one there
    fields: Callable[[str], dict[str, Any]] = lambda name: {}  # what it says about the model of a name
    preprocess: Callable[[str], Preprocess | None] = lambda name: None  # likewise; None: what the name says


@dataclass(frozen=True, kw_only=True)
class Family:
    """Networks of one kind, and how other libraries name and store them."""

    network: type[nn.Module]
    entries: Mapping[str, Entry]  # by name
    layouts: tuple[Layout, ...] = ()
    # By the model_type of transformers' config.json: the name of the model that it describes, None where it is none; a
    # UserError names what makes it another network.
    transformers: Mapping[str, Callable[[Mapping[str, Any]], str | None]] = field(default_factory=dict)


def check_usual(config: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
    """Refuses a library's configuration that has another value than the usual one; it may leave them out.

    Raises:
        UserError: that names the key.
    """
    for key, value in usual.items():
        if config.get(key, value) != value:
            raise UserError(f"has {key} {config[key]!r}, and the network here has {value!r}")
