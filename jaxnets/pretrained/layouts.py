"""Where each of our parameters lies in the files of other libraries, and what those libraries' habits are.

A layout says, for one of our parameters, which key holds it there. Conversion walks over our parameters, so that none
can be forgotten, and the same map read backwards writes files.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxnets.errors import UserError
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.efficientnet import EfficientNet, Stage
from jaxnets.models.registry import find_model
from jaxnets.models.resnet import ResNet
from jaxnets.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

Path = tuple[str, ...]  # of a leaf under `params` or `batch_stats`: ("stage1_block2", "conv1", "kernel")


@dataclass(frozen=True, kw_only=True)
class Layout:
    name: str
    network: type[nn.Module]
    mark: str  # a key that tells it from the other layouts
    module_key: Callable[[Any, Path], str]  # (model, path of a layer) -> key of that layer
    fields: Callable[[str], dict[str, Any]] = lambda name: {}  # what it says about the model of a name
    preprocess: Callable[[str], Preprocess | None] = lambda name: None  # likewise; None: what the name says


@dataclass(frozen=True)
class Slot:
    """The place of one of our arrays in a layout."""

    collection: str  # params or batch_stats
    path: Path
    key: str
    shape: tuple[int, ...]  # ours
    as_convolution: bool  # a dense layer that is a 1×1 convolution there

    @property
    def foreign_shape(self) -> tuple[int, ...]:
        if len(self.shape) == 4:  # [i, j, c, f] here, [f, c, i, j] there
            return (self.shape[3], self.shape[2], self.shape[0], self.shape[1])
        if len(self.shape) == 2:  # [c, f] here, [f, c] there
            return (self.shape[1], self.shape[0], *((1, 1) if self.as_convolution else ()))
        return self.shape

    def to_ours(self, array: np.ndarray) -> np.ndarray:
        if len(self.shape) == 4:
            return array.transpose(2, 3, 1, 0)
        return array.reshape(self.shape[::-1]).T if len(self.shape) == 2 else array

    def to_foreign(self, array: np.ndarray) -> np.ndarray:
        if len(self.shape) == 4:
            return array.transpose(3, 2, 0, 1)
        return array.T.reshape(self.foreign_shape) if len(self.shape) == 2 else array


def recognise(keys: Iterable[str], description: str) -> list[Layout]:
    """Returns the layouts that a file's keys can belong to.

    Raises:
        UserError: if there is none.
    """
    keys = set(keys)
    found = [layout for layout in LAYOUTS if layout.mark in keys]
    if not found:
        raise UserError(
            f"the keys of {description} ({', '.join(sorted(keys)[:3])}, …) belong to no layout that is known: "
            f"{', '.join(sorted({f'{x.name} ({x.network.__name__})' for x in LAYOUTS}))}"
        )
    return found


def slots(layout: Layout, model: nn.Module, channels: int) -> list[Slot]:
    """Returns the place in `layout` of each of the model's arrays, for images of `channels`."""
    with plain_convolutions():
        shapes: Any = jax.eval_shape(
            lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, channels), jnp.float32), train=False)
        )
    return list(_slots(layout, model, shapes))


def _slots(layout: Layout, model: nn.Module, variables: Mapping[str, Any]) -> Iterator[Slot]:
    for collection in ("params", "batch_stats"):
        for keys, leaf in jax.tree_util.tree_leaves_with_path(variables.get(collection, {})):
            path = tuple(key.key for key in keys)
            as_convolution = path[-2] in ("reduce", "expand") or (
                path[-2] == "head" and isinstance(model, ResNet) and model.preactivation
            )
            key = f"{layout.module_key(model, path[:-1])}.{_LEAVES[path[-1]]}"
            yield Slot(collection, path, key, leaf.shape, as_convolution)


_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def _place(block: str) -> tuple[int, int]:
    """Returns (2, 3) for "stage2_block3"."""
    stage, _, number = block.removeprefix("stage").partition("_block")
    return int(stage), int(number)


def _resnet_timm(model: ResNet, path: Path) -> str:
    if model.preactivation:
        return _resnetv2_timm(model, path)
    deep = {
        "stem_conv1": "conv1.0",
        "stem_norm1": "conv1.1",
        "stem_conv2": "conv1.3",
        "stem_norm2": "conv1.4",
        "stem_conv3": "conv1.6",
        "stem_norm3": "bn1",
    }
    ends = {"stem_conv": "conv1", "stem_norm": "bn1", "head": "fc", **deep}
    if path[0] in ends:
        return ends[path[0]]
    stage, block = _place(path[0])
    if path[1] == "shortcut":
        pool = 1 if model.shortcut == "D" else 0  # an average pool, or its empty place, comes first
        layer = f"downsample.{pool + (path[2] == 'norm')}"
    elif path[1] == "squeeze":
        layer = {"reduce": "se.fc1", "expand": "se.fc2"}[path[2]]
    else:
        layer = path[1].replace("norm", "bn")
    return f"layer{stage}.{block - 1}.{layer}"


def _resnetv2_timm(model: ResNet, path: Path) -> str:
    if path[0].startswith("stem_"):
        return f"stem.{path[0].removeprefix('stem_')}"
    ends = {"last_norm": "norm", "head": "head.fc"}
    if path[0] in ends:
        return ends[path[0]]
    stage, block = _place(path[0])
    layer = "downsample.conv" if path[1] == "shortcut" else path[1]
    return f"stages.{stage - 1}.blocks.{block - 1}.{layer}"


def _resnet_transformers(model: ResNet, path: Path) -> str:
    ends = {
        "stem_conv": "resnet.embedder.embedder.convolution",
        "stem_norm": "resnet.embedder.embedder.normalization",
        "head": "classifier.1",
    }
    if path[0] in ends:
        return ends[path[0]]
    stage, block = _place(path[0])
    layer = path[2] if path[1] == "shortcut" else path[1]
    kind = "convolution" if layer.startswith("conv") else "normalization"
    place = "shortcut" if path[1] == "shortcut" else f"layer.{int(layer[-1]) - 1}"
    return f"resnet.encoder.stages.{stage - 1}.layers.{block - 1}.{place}.{kind}"


def _block_of(model: EfficientNet, name: str) -> tuple[Stage, int, int, int]:
    """Returns a block's stage, that stage's number, the block's number in it and among all blocks, all from 0."""
    stage, block = _place(name)
    stages = model.scaled_stages
    before = sum(earlier.repeats for earlier in stages[: stage - 1])
    return stages[stage - 1], stage - 1, block - 1, before + block - 1


def _efficientnet_timm(model: EfficientNet, path: Path) -> str:
    ends = {
        "stem_conv": "conv_stem",
        "stem_norm": "bn1",
        "top_conv": "conv_head",
        "top_norm": "bn2",
        "head": "classifier",
    }
    if path[0] in ends:
        return ends[path[0]]
    stage, i, j, _ = _block_of(model, path[0])
    if path[1] == "squeeze":
        layer = f"se.conv_{path[2]}"
    elif stage.fused and stage.expand == 1:
        layer = {"project_conv": "conv", "project_norm": "bn1"}[path[1]]
    elif stage.fused:
        names = {"expand_conv": "conv_exp", "expand_norm": "bn1", "project_conv": "conv_pwl", "project_norm": "bn2"}
        layer = names[path[1]]
    elif stage.expand == 1:
        names = {"depthwise_conv": "conv_dw", "depthwise_norm": "bn1", "project_conv": "conv_pw", "project_norm": "bn2"}
        layer = names[path[1]]
    else:
        names = {
            "expand_conv": "conv_pw",
            "expand_norm": "bn1",
            "depthwise_conv": "conv_dw",
            "depthwise_norm": "bn2",
            "project_conv": "conv_pwl",
            "project_norm": "bn3",
        }
        layer = names[path[1]]
    return f"blocks.{i}.{j}.{layer}"


def _efficientnet_torchvision(model: EfficientNet, path: Path) -> str:
    top = f"features.{len(model.stages) + 1}"
    ends = {
        "stem_conv": "features.0.0",
        "stem_norm": "features.0.1",
        "top_conv": f"{top}.0",
        "top_norm": f"{top}.1",
        "head": "classifier.1",
    }
    if path[0] in ends:
        return ends[path[0]]
    stage, i, j, _ = _block_of(model, path[0])
    order = [] if stage.expand == 1 else ["expand"]
    order += [] if stage.fused else ["depthwise"]
    order += ["squeeze"] if stage.squeeze else []
    order += ["project"]
    part, _, kind = path[1].partition("_")
    place = f"features.{i + 1}.{j}.block.{order.index(part)}"
    if part == "squeeze":
        return f"{place}.{ {'reduce': 'fc1', 'expand': 'fc2'}[path[2]] }"
    return f"{place}.{0 if kind == 'conv' else 1}"


def _efficientnet_transformers(model: EfficientNet, path: Path) -> str:
    ends = {
        "stem_conv": "efficientnet.embeddings.convolution",
        "stem_norm": "efficientnet.embeddings.batchnorm",
        "top_conv": "efficientnet.encoder.top_conv",
        "top_norm": "efficientnet.encoder.top_bn",
        "head": "classifier",
    }
    if path[0] in ends:
        return ends[path[0]]
    *_, number = _block_of(model, path[0])
    names = {
        "expand_conv": "expansion.expand_conv",
        "expand_norm": "expansion.expand_bn",
        "depthwise_conv": "depthwise_conv.depthwise_conv",
        "depthwise_norm": "depthwise_conv.depthwise_norm",
        "project_conv": "projection.project_conv",
        "project_norm": "projection.project_bn",
    }
    layer = f"squeeze_excite.{path[2]}" if path[1] == "squeeze" else names[path[1]]
    return f"efficientnet.encoder.blocks.{number}.{layer}"


def _efficientnet_pytorch(model: EfficientNet, path: Path) -> str:
    ends = {
        "stem_conv": "_conv_stem",
        "stem_norm": "_bn0",
        "top_conv": "_conv_head",
        "top_norm": "_bn1",
        "head": "_fc",
    }
    if path[0] in ends:
        return ends[path[0]]
    *_, number = _block_of(model, path[0])
    names = {
        "expand_conv": "_expand_conv",
        "expand_norm": "_bn0",
        "depthwise_conv": "_depthwise_conv",
        "depthwise_norm": "_bn1",
        "project_conv": "_project_conv",
        "project_norm": "_bn2",
    }
    layer = f"_se_{path[2]}" if path[1] == "squeeze" else names[path[1]]
    return f"_blocks.{number}.{layer}"


def _tensorflow(name: str) -> dict[str, Any]:
    """Pads, and keeps its statistics, as the TensorFlow weights that the library converted."""
    return {"padding": "same", "norm_epsilon": 1e-3, "norm_decay": 0.99}


def _torchvision(name: str) -> dict[str, Any]:
    """Pads symmetrically under every name; its larger networks have TensorFlow's epsilon."""
    size = name.removeprefix("tf_").partition("_")[2]
    large = size in ("b5", "b6", "b7")
    return {
        "padding": "torch",
        "norm_epsilon": 1e-3 if large or name.removeprefix("tf_").startswith("efficientnetv2") else 1e-5,
        "norm_decay": 0.99 if large else 0.9,
    }


# How torchvision evaluates its weights: pixels of the crop and of the shorter side before it, interpolation.
_TORCHVISION_SIZES = {
    "b0": (224, 256, "bicubic"),
    "b1": (240, 256, "bicubic"),
    "b2": (288, 288, "bicubic"),
    "b3": (300, 320, "bicubic"),
    "b4": (380, 384, "bicubic"),
    "b5": (456, 456, "bicubic"),
    "b6": (528, 528, "bicubic"),
    "b7": (600, 600, "bicubic"),
    "s": (384, 384, "bilinear"),
    "m": (480, 480, "bilinear"),
    "l": (480, 480, "bicubic"),
}


def _torchvision_preprocess(name: str) -> Preprocess | None:
    size = name.rpartition("_")[2]
    if size not in _TORCHVISION_SIZES:
        return None
    pixels, resized, interpolation = _TORCHVISION_SIZES[size]
    half = size == "l"
    return Preprocess(
        height=pixels,
        width=pixels,
        channels=3,
        mean=(0.5, 0.5, 0.5) if half else IMAGENET_MEAN,
        std=(0.5, 0.5, 0.5) if half else IMAGENET_STD,
        crop_fraction=pixels / resized,
        interpolation=interpolation,
    )


def _efficientnet_pytorch_preprocess(name: str) -> Preprocess | None:
    """The Lite weights of TensorFlow were trained on (pixel − 127) / 128."""
    own = find_model(name).preprocess
    if own is None or "_lite" not in name:
        return own
    return replace(own, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)


LAYOUTS: tuple[Layout, ...] = (
    # torchvision's ResNets have the same keys; what timm adds to them follows on.
    Layout(name="timm", network=ResNet, mark="layer1.0.conv1.weight", module_key=_resnet_timm),
    Layout(name="timm", network=ResNet, mark="stages.0.blocks.0.conv1.weight", module_key=_resnet_timm),
    Layout(
        name="transformers",
        network=ResNet,
        mark="resnet.embedder.embedder.convolution.weight",
        module_key=_resnet_transformers,
    ),
    Layout(name="timm", network=EfficientNet, mark="conv_stem.weight", module_key=_efficientnet_timm),
    Layout(
        name="torchvision",
        network=EfficientNet,
        mark="features.0.0.weight",
        module_key=_efficientnet_torchvision,
        fields=_torchvision,
        preprocess=_torchvision_preprocess,
    ),
    Layout(
        name="transformers",
        network=EfficientNet,
        mark="efficientnet.embeddings.convolution.weight",
        module_key=_efficientnet_transformers,
        fields=_tensorflow,
    ),
    Layout(
        name="efficientnet-pytorch",
        network=EfficientNet,
        mark="_conv_stem.weight",
        module_key=_efficientnet_pytorch,
        fields=_tensorflow,
        preprocess=_efficientnet_pytorch_preprocess,
    ),
)
