"""ResNets in the files of other libraries: under which keys, and what their configurations say."""

from collections.abc import Mapping
from typing import Any

from jaxnets.models.conventions import imagenet
from jaxnets.models.family import Described, Layout, Path, Published, block_numbers, differences
from jaxnets.models.resnet.network import ResNet
from jaxnets.models.resnet.variants import IMAGENET
from jaxnets.preprocess import Preprocess


def _timm(model: ResNet, path: Path) -> str:
    if model.preactivation:
        return _preactivated_timm(model, path)
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
    stage, block = block_numbers(path[0])
    if path[1] == "shortcut":
        pool = 1 if model.shortcut == "D" else 0  # an average pool, or nothing in its stead, comes first
        layer = f"downsample.{pool + (path[2] == 'norm')}"
    elif path[1] == "squeeze":
        layer = {"reduce": "se.fc1", "expand": "se.fc2"}[path[2]]
    else:
        layer = path[1].replace("norm", "bn")
    return f"layer{stage}.{block - 1}.{layer}"


def _preactivated_timm(model: ResNet, path: Path) -> str:
    if path[0].startswith("stem_"):
        return f"stem.{path[0].removeprefix('stem_')}"
    ends = {"last_norm": "norm", "head": "head.fc"}
    if path[0] in ends:
        return ends[path[0]]
    stage, block = block_numbers(path[0])
    layer = "downsample.conv" if path[1] == "shortcut" else path[1]
    return f"stages.{stage - 1}.blocks.{block - 1}.{layer}"


def _transformers(model: ResNet, path: Path) -> str:
    ends = {
        "stem_conv": "resnet.embedder.embedder.convolution",
        "stem_norm": "resnet.embedder.embedder.normalization",
        "head": "classifier.1",
    }
    if path[0] in ends:
        return ends[path[0]]
    stage, block = block_numbers(path[0])
    layer = path[2] if path[1] == "shortcut" else path[1]
    kind = "convolution" if layer.startswith("conv") else "normalization"
    branch = "shortcut" if path[1] == "shortcut" else f"layer.{int(layer[-1]) - 1}"
    return f"resnet.encoder.stages.{stage - 1}.layers.{block - 1}.{branch}.{kind}"


def _is_convolution(model: ResNet, path: Path) -> bool:
    """timm's gates are convolutions, and so is its head after pre-activation."""
    return path[-1] in ("reduce", "expand") or (path[-1] == "head" and model.preactivation)


LAYOUTS: tuple[Layout, ...] = (
    # torchvision's ResNets have the same keys; what timm adds to them follows on.
    Layout(name="timm", mark="layer1.0.conv1.weight", module_key=_timm, is_convolution=_is_convolution),
    Layout(name="timm", mark="stages.0.blocks.0.conv1.weight", module_key=_timm, is_convolution=_is_convolution),
    Layout(name="transformers", mark="resnet.embedder.embedder.convolution.weight", module_key=_transformers),
)

_BY_DEPTHS = {(variant.block, variant.blocks): name for name, variant in IMAGENET.items() if not variant.fields}


def of_transformers(config: Mapping[str, Any]) -> Described:
    """Returns the model that transformers' config.json of a ResNet describes."""
    layer, depths = config.get("layer_type", "bottleneck"), tuple(config.get("depths", (3, 4, 6, 3)))
    usual = {
        "hidden_sizes": [64, 128, 256, 512] if layer == "basic" else [256, 512, 1024, 2048],
        "embedding_size": 64,
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }
    return Described(name=_BY_DEPTHS.get((layer, depths)), differences=differences(config, usual))


# What torchvision publishes: its first recipe, in files of two ages, and "IMAGENET1K_V2", which resizes to 232 pixels.
_V1, _V2 = imagenet(224, 224 / 256, "bilinear"), imagenet(224, 224 / 232, "bilinear")
_TORCHVISION: Mapping[str, tuple[tuple[str, Preprocess], ...]] = {
    "resnet18": (("5c106cde", _V1), ("f37072fd", _V1)),
    "resnet34": (("333f7ec4", _V1), ("b627a593", _V1)),
    "resnet50": (("19c8e357", _V1), ("0676ba61", _V1), ("11ad3fa6", _V2)),
    "resnet101": (("5d3b4d8f", _V1), ("63fe2227", _V1), ("cd907fc2", _V2)),
    "resnet152": (("b121ed2d", _V1), ("394f9c45", _V1), ("f82ba261", _V2)),
    "resnext50_32x4d": (("7cdf4587", _V1), ("1a0047aa", _V2)),
    "resnext101_32x8d": (("8ba56ff5", _V1), ("110c445d", _V2)),
    "wide_resnet50_2": (("95faca4d", _V1), ("9ba9bcbe", _V2)),
    "wide_resnet101_2": (("32ee1156", _V1), ("d733dc28", _V2)),
}
PUBLISHED: Mapping[str, Published] = {
    digest: Published(model=name, preprocess=preprocess)
    for name, files in _TORCHVISION.items()
    for digest, preprocess in files
}
