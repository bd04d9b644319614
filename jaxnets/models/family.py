"""What a family of models says of itself. It is all that the rest of jaxnets knows of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from jaxnets.models.mode import Train
from jaxnets.preprocess import Preprocess

Variables = dict[str, Any]  # {"params": …, "batch_stats": …}
Path = tuple[str, ...]  # of a layer, or a leaf, under `params` or `batch_stats`: ("stage1_block2", "conv1", "kernel")

# Fields of a network that change how it is trained or what it is for, and not what its layers compute.
TRAINING_FIELDS = frozenset(
    {
        "num_classes",
        "single_output",
        "dropout",
        "stochastic_depth",
        "zero_init_last_norm",
        "remat_stages",
        "norm_group_size",
        "norm_decay",
        "dtype",
        "preprocess",
    }
)


class Outputs(NamedTuple):
    """What one pass through a network gives."""

    features: dict[str, Float[Array, "b _ _ _"]]  # [b, h, w, c] after the stem and after each stage, by name
    embedding: Float[Array, "b f"]  # pooled, before dropout and head; float32 or wider
    logits: Float[Array, "b classes"]  # float32 or wider


class Network(nn.Module):
    """A network for any number of channels, and for any input size unless its structure says otherwise.

    A family's own is a subclass with `outputs`.

    Its fields `num_classes`, `single_output`, `dtype` (that it computes in) and `preprocess` (what its images go
    through before) are those that every family has. Parameters and statistics are float32 or wider, in the collections
    `params` and `batch_stats`; noise is drawn from the stream "dropout". The head is a `layers.Head`.
    """

    def outputs(self, x: Float[Array, "b h w c"], train: Train) -> Outputs:
        """Returns all that the network computes; what nobody asks for is not computed.

        Its modules take `train` as it is given and ask `mode.trains` whether they are among those that train.
        """
        raise NotImplementedError

    def __call__(self, x: Float[Array, "b h w c"], *, train: Train = False) -> Float[Array, "b classes"]:
        return self.outputs(x, train).logits

    def features(self, x: Float[Array, "b h w c"], *, train: Train = False) -> dict[str, Float[Array, "b _ _ _"]]:
        return self.outputs(x, train).features

    def embed(self, x: Float[Array, "b h w c"], *, train: Train = False) -> Float[Array, "b f"]:
        return self.outputs(x, train).embedding


@dataclass(frozen=True, kw_only=True)
class Structure:
    """A network's layers, as they are called under `params`, from the image to the logits."""

    stem: tuple[str, ...]  # the first is the convolution that sees the image
    # The blocks of each stage by its name, a block as the names of its layers. The first layer of a stage's last block
    # gives what the stage does, as rows and columns of features: Grad-CAM looks at it.
    stages: Mapping[str, tuple[tuple[str, ...], ...]]
    head: str
    before_head: tuple[str, ...] = ()  # layers after the last block that are frozen, and paced, with the head
    fixed: tuple[str, ...] = ()  # layers that never train; none has a norm
    one_size: bool = False  # its parameters are for images of the size that it began with, and for no other

    def groups(self, *, coarse: bool = False) -> tuple[tuple[str, ...], ...]:
        """Returns the layers in the order in which they are frozen, and their rates grow: stem, blocks, head.

        They are the groups of timm's layer-wise decay. Coarse ones have a stage in place of a block.
        """
        blocks = [block for stage in self.stages.values() for block in stage]
        if coarse:
            blocks = [tuple(layer for block in stage for layer in block) for stage in self.stages.values()]
        return (self.stem, *blocks, (*self.before_head, self.head))

    def stage_ends(self) -> dict[str, str]:
        """Returns the layer that each stage ends with, by the stage's name, first to last."""
        return {name: blocks[-1][0] for name, blocks in self.stages.items()}


def numbered_stages(blocks: Iterable[int], *, last: tuple[str, ...] = ()) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Returns `Structure.stages` of blocks named `stage1_block1` and so on, as many in each stage as given.

    The layers `last` belong to the last block.
    """
    stages: dict[str, list[tuple[str, ...]]] = {
        f"stage{i}": [(f"stage{i}_block{j}",) for j in range(1, count + 1)] for i, count in enumerate(blocks, 1)
    }
    list(stages.values())[-1][-1] += last
    return {name: tuple(stage) for name, stage in stages.items()}


def block_numbers(block: str) -> tuple[int, int]:
    """Returns (2, 3) for "stage2_block3"."""
    stage, number = block.removeprefix("stage").split("_block")
    return int(stage), int(number)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model that `create_model` knows."""

    fields: Mapping[str, Any]  # what makes the family's network the model of that name
    preprocess: Preprocess | None = None  # as its family was evaluated; None: there is no such convention
    weights: str | None = None  # the source that `jaxnets.load(name)` takes, as load_pretrained knows it
    timm_name: str | None = None  # of the same network in timm; None: there is none


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Where a library has a parameter that is no weight or bias of a layer, or has another shape there."""

    key: str
    shape: tuple[int, ...]  # of the array there, which holds the same numbers in the same order


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where each of a network's parameters lies in the files of a library, and what that library's habits are."""

    name: str  # of the library
    mark: str  # a key that tells it from the other layouts
    module_key: Callable[[Any, Path], str]  # (model, path of a layer) -> key of that layer
    is_convolution: Callable[[Any, Path], bool] = lambda model, path: False  # a dense layer that is a 1×1 one there
    # (model, path of a parameter, its shape here) -> where it is; None: it is the weight or the bias of its layer.
    parameter: Callable[[Any, Path, tuple[int, ...]], Stored | None] = lambda model, path, shape: None
    fields: Callable[[str], dict[str, Any]] = lambda name: {}  # what it says about the model of a name
    preprocess: Callable[[str], Preprocess | None] = lambda name: None  # likewise; None: what the name says


@dataclass(frozen=True, kw_only=True)
class Published:
    """What is known of a file that a library publishes, and that does not say it itself."""

    model: str
    preprocess: Preprocess


@dataclass(frozen=True, kw_only=True)
class Described:
    """The model that a library's configuration describes."""

    name: str | None  # None: none that is like it has a name here
    # Where its network is another one all the same: (what the configuration says, what it would have to say), by key.
    differences: Mapping[str, tuple[Any, Any]]
    fields: Mapping[str, Any] = field(default_factory=dict)  # that the network of that name gets


@dataclass(frozen=True, kw_only=True)
class Family:
    """Networks of one kind, and how other libraries name and store them."""

    network: type[Network]
    entries: Mapping[str, Entry]  # by name
    structure: Callable[[Any], Structure]  # of a network
    layouts: tuple[Layout, ...] = ()
    # Returns a network's first variables as its training images have them begin, from some of these, normalised; None:
    # they begin alike whatever the images.
    from_images: Callable[[Any, Variables, Float[np.ndarray, "n h w c"]], Variables] | None = None
    # By the model_type of transformers' config.json: reads it.
    transformers: Mapping[str, Callable[[Mapping[str, Any]], Described]] = field(default_factory=dict)
    # By the first eight hex digits of a file's SHA-256.
    published: Mapping[str, Published] = field(default_factory=dict)


def differences(config: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns where a configuration has another value than the usual one, which it may leave out: (found, usual)."""
    return {key: (config[key], value) for key, value in usual.items() if key in config and config[key] != value}
