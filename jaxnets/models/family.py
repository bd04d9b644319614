"""What a family of models says of itself. It is all that the rest of jaxnets knows of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from jaxnets.models.mode import Train
from jaxnets.preprocess import Preprocess

Variables = dict[str, Any]  # {"params": …, "batch_stats": …}
Path = tuple[str, ...]  # of a layer, or a leaf, under `params` or `batch_stats`: ("stage1_block2", "conv1", "kernel")
# Of a layer in a library's files. Several: it is several layers there, whose features lie side by side here. After one
# that ends with "_" the name of an array follows at once, where a dot comes between otherwise.
Keys = str | tuple[str, ...]

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

    quantised: ClassVar[bool] = False  # True: it computes as in 8 bits (`jaxnets.models.quantised`)

    def in_float(self) -> "Network":
        """Returns the network of the same variables that computes in floating point."""
        return self

    def follower(self) -> "Network":
        """Returns the network whose running statistics, after a batch in training, are those of that batch alone."""
        return self.clone(norm_decay=0.0)

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
class Tokens:
    """What the blocks of a transformer pass on, `[b, first + rows · columns, c]`: some tokens, then one a patch."""

    patch: tuple[int, int]  # rows and columns of pixels
    first: int  # tokens before those of the patches, of which the class token is the first
    pooled: Literal["token", "average"]  # what the head sees: the class token, or the average of the patches
    attention: str  # the layer of each block that sows its `weights` `[b, heads, n, n]`

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Returns the rows and columns of patches in an image."""
        return height // self.patch[0], width // self.patch[1]


@dataclass(frozen=True, kw_only=True)
class Structure:
    """A network's layers, as they are called under `params`, from the image to the logits."""

    stem: tuple[str, ...]  # the first is the convolution that sees the image
    # The blocks of each stage by its name, a block as the names of its layers. The first layer of a stage's last block
    # gives what the stage does, as rows and columns of features or as tokens: Grad-CAM looks at it, or at what is
    # `seen` in it.
    stages: Mapping[str, tuple[tuple[str, ...], ...]]
    head: str
    before_head: tuple[str, ...] = ()  # layers after the last block that are frozen, and paced, with the head
    fixed: tuple[str, ...] = ()  # layers that never train; none has a norm
    one_size: bool = False  # its parameters are for images of the size that it began with, and for no other
    seen: str | None = None  # the layer inside a stage's last block that is looked at; None: the block itself
    tokens: Tokens | None = None  # of a transformer

    def groups(self, *, coarse: bool = False) -> tuple[tuple[str, ...], ...]:
        """Returns the layers in the order in which they are frozen, and their rates grow: stem, blocks, head.

        They are the groups of timm's layer-wise decay. Coarse ones have a stage in place of a block.
        """
        blocks = [block for stage in self.stages.values() for block in stage]
        if coarse:
            blocks = [tuple(layer for block in stage for layer in block) for stage in self.stages.values()]
        return (self.stem, *blocks, (*self.before_head, self.head))

    def stage_ends(self) -> dict[str, str]:
        """Returns the layer that each stage ends with, by the stage's name, first to last: "stage1_block2/norm1"."""
        inside = f"/{self.seen}" if self.seen else ""
        return {name: blocks[-1][0] + inside for name, blocks in self.stages.items()}


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
    module_key: Callable[[Any, Path], Keys]  # (model, path of a layer) -> key of that layer
    is_convolution: Callable[[Any, Path], bool] = lambda model, path: False  # a dense layer that is a 1×1 one there
    # (model, path of a parameter, its shape here) -> where it is; None: it is the weight or the bias of its layer.
    parameter: Callable[[Any, Path, tuple[int, ...]], Stored | None] = lambda model, path, shape: None
    renamed: Callable[[str], str] = lambda key: key  # a key of files of another age -> that of today's
    fields: Callable[[str], dict[str, Any]] = lambda name: {}  # what it says about the model of a name
    # What the arrays of a file say about its model, as JSON values. May raise a UserError whose subject is the file.
    fields_of: Callable[[Any, Mapping[str, np.ndarray]], dict[str, Any]] = lambda model, arrays: {}
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
class InTimm:
    """How a family's networks are built by timm's create_model, where that is not how most ConvNets are."""

    pooling: Callable[[Any], str] = lambda model: "avg"  # a network's global_pool
    one_size: bool = False  # whether its networks there take images of one size
    irrelevant: frozenset[str] = frozenset()  # arguments that change no answer
    usual: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # by argument: values that change nothing
    # By argument: (the fields of the name, a value) -> the fields that it gives the network.
    fields: Mapping[str, Callable[[Mapping[str, Any], Any], dict[str, Any]]] = field(default_factory=dict)
    # By field: a network in which it is not that of its name -> the arguments for it; None: there are none.
    arguments: Mapping[str, Callable[[Any], dict[str, Any] | None]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Family:
    """Networks of one kind, and how other libraries name and store them."""

    network: type[Network]
    entries: Mapping[str, Entry]  # by name
    structure: Callable[[Any], Structure]  # of a network
    layouts: tuple[Layout, ...] = ()
    # (fields of a name, height, width of images) -> fields that a network takes from those that it begins with. May
    # raise a UserError for a size that it cannot take.
    fields_of_size: Callable[[Mapping[str, Any], int, int], dict[str, Any]] = lambda fields, height, width: {}
    timm: InTimm = InTimm()
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
