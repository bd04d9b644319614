"""EfficientNets in the files of other libraries: under which keys, by which conventions, and how they are described."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from jaxnets.models.conventions import TENSORFLOW, TORCH, imagenet
from jaxnets.models.efficientnet.network import EfficientNet, Stage
from jaxnets.models.efficientnet.variants import B_VARIANTS, ENTRIES
from jaxnets.models.family import Described, Layout, Path, Published, block_numbers, differences
from jaxnets.preprocess import Preprocess


def _block_of(model: EfficientNet, name: str) -> tuple[Stage, int, int, int]:
    """Returns a block's stage, that stage's number, the block's number in it and among all blocks, all from 0."""
    stage, block = block_numbers(name)
    stages = model.scaled_stages
    before = sum(earlier.repeats for earlier in stages[: stage - 1])
    return stages[stage - 1], stage - 1, block - 1, before + block - 1


def _timm(model: EfficientNet, path: Path) -> str:
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


def _torchvision(model: EfficientNet, path: Path) -> str:
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
    layer, _, kind = path[1].partition("_")
    key = f"features.{i + 1}.{j}.block.{order.index(layer)}"
    if layer == "squeeze":
        return f"{key}.{ {'reduce': 'fc1', 'expand': 'fc2'}[path[2]] }"
    return f"{key}.{0 if kind == 'conv' else 1}"


def _transformers(model: EfficientNet, path: Path) -> str:
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


def _is_convolution(model: EfficientNet, path: Path) -> bool:
    """Every library's gates are convolutions."""
    return path[-1] in ("reduce", "expand")


def _tensorflow_fields(name: str) -> dict[str, Any]:
    """Pads, and keeps its statistics, as the TensorFlow weights that the library converted."""
    return TENSORFLOW.fields()


def _torchvision_fields(name: str) -> dict[str, Any]:
    """Pads symmetrically under every name; its larger networks have TensorFlow's epsilon."""
    name = name.removeprefix("tf_")
    large = name.partition("_")[2] in ("b5", "b6", "b7")
    epsilon = TENSORFLOW if large or name.startswith("efficientnetv2") else TORCH
    decay = TENSORFLOW if large else TORCH
    return {**TORCH.fields(), "norm_epsilon": epsilon.norm_epsilon, "norm_decay": decay.norm_decay}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How torchvision evaluates its weights."""

    pixels: int  # of the crop
    resized: int  # pixels of the shorter side before it
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    half: bool = False  # mean and deviation are 0.5

    def preprocess(self) -> Preprocess:
        return imagenet(self.pixels, self.pixels / self.resized, self.interpolation, half=self.half)


_TORCHVISION: Mapping[str, Evaluation] = {
    "efficientnet_b0": Evaluation(pixels=224, resized=256),
    "efficientnet_b1": Evaluation(pixels=240, resized=256),
    "efficientnet_b2": Evaluation(pixels=288, resized=288),
    "efficientnet_b3": Evaluation(pixels=300, resized=320),
    "efficientnet_b4": Evaluation(pixels=380, resized=384),
    "efficientnet_b5": Evaluation(pixels=456, resized=456),
    "efficientnet_b6": Evaluation(pixels=528, resized=528),
    "efficientnet_b7": Evaluation(pixels=600, resized=600),
    "efficientnetv2_s": Evaluation(pixels=384, resized=384, interpolation="bilinear"),
    "efficientnetv2_m": Evaluation(pixels=480, resized=480, interpolation="bilinear"),
    "efficientnetv2_l": Evaluation(pixels=480, resized=480, half=True),
}


def _torchvision_preprocess(name: str) -> Preprocess | None:
    name = name.removeprefix("tf_")
    return _TORCHVISION[name].preprocess() if name in _TORCHVISION else None


def _efficientnet_pytorch_preprocess(name: str) -> Preprocess | None:
    """The Lite weights of TensorFlow were trained on (pixel − 127) / 128."""
    own = ENTRIES[name].preprocess
    if own is None or "_lite" not in name:
        return own
    return replace(own, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)


LAYOUTS: tuple[Layout, ...] = (
    Layout(name="timm", mark="conv_stem.weight", module_key=_timm, is_convolution=_is_convolution),
    Layout(
        name="torchvision",
        mark="features.1.0.block.0.0.weight",
        module_key=_torchvision,
        is_convolution=_is_convolution,
        fields=_torchvision_fields,
        preprocess=_torchvision_preprocess,
    ),
    Layout(
        name="transformers",
        mark="efficientnet.embeddings.convolution.weight",
        module_key=_transformers,
        is_convolution=_is_convolution,
        fields=_tensorflow_fields,
    ),
    Layout(
        name="efficientnet-pytorch",
        mark="_conv_stem.weight",
        module_key=_efficientnet_pytorch,
        is_convolution=_is_convolution,
        fields=_tensorflow_fields,
        preprocess=_efficientnet_pytorch_preprocess,
    ),
)


def of_transformers(config: Mapping[str, Any]) -> Described:
    """Returns the model that transformers' config.json of an EfficientNet describes."""
    usual = {
        "depth_divisor": 8,
        "kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
        "in_channels": [32, 16, 24, 40, 80, 112, 192],
        "out_channels": [16, 24, 40, 80, 112, 192, 320],
        "strides": [1, 2, 2, 2, 1, 2, 1],
        "num_block_repeats": [1, 2, 2, 3, 3, 4, 1],
        "expand_ratios": [1, 6, 6, 6, 6, 6, 6],
        "squeeze_expansion_ratio": 0.25,
        "hidden_act": "swish",
        "pooling_type": "mean",
        "batch_norm_eps": 0.001,
    }
    width, depth = config.get("width_coefficient", 2.0), config.get("depth_coefficient", 3.1)
    sizes = {(variant.width, variant.depth): size for size, variant in B_VARIANTS.items()}
    found = differences(config, usual)
    padding, expected = _paddings(config, depth)
    if padding != expected:
        found["depthwise_padding"] = (sorted(padding), sorted(expected))
    name = f"tf_efficientnet_{sizes[width, depth]}" if (width, depth) in sizes else None
    return Described(name=name, differences=found)


def _paddings(config: Mapping[str, Any], depth: float) -> tuple[set[int], set[int]]:
    """Returns the halving blocks that pad both sides, and those that would at the configuration's own size.

    transformers fixes each block's padding in its configuration; TensorFlow's SAME follows the size of the input, and
    pads both sides where that is odd.
    """
    size = config.get("image_size", 600)
    size = math.ceil((size if isinstance(size, int) else size[0]) / 2)  # after the stem
    odd, halving, block = set(), set(), 0
    for stride, repeats in zip((1, 2, 2, 2, 1, 2, 1), (1, 2, 2, 3, 3, 4, 1), strict=True):
        if stride == 2:
            halving.add(block)
            odd |= {block} if size % 2 else set()
        size = math.ceil(size / stride)
        block += math.ceil(depth * repeats)
    return halving & set(config.get("depthwise_padding", ())), odd


# torchvision's files, those of an earlier age among them. B1 is there by two recipes.
_B1_V2 = Evaluation(pixels=240, resized=255, interpolation="bilinear")
PUBLISHED: Mapping[str, Published] = {
    digest: Published(model=name, preprocess=evaluation.preprocess())
    for digest, name, evaluation in (
        ("3dd342df", "efficientnet_b0", _TORCHVISION["efficientnet_b0"]),
        ("7f5810bc", "efficientnet_b0", _TORCHVISION["efficientnet_b0"]),
        ("533bc792", "efficientnet_b1", _TORCHVISION["efficientnet_b1"]),
        ("bac287d4", "efficientnet_b1", _TORCHVISION["efficientnet_b1"]),
        ("c27df63c", "efficientnet_b1", _B1_V2),
        ("bcdf34b7", "efficientnet_b2", _TORCHVISION["efficientnet_b2"]),
        ("c35c1473", "efficientnet_b2", _TORCHVISION["efficientnet_b2"]),
        ("cf984f9c", "efficientnet_b3", _TORCHVISION["efficientnet_b3"]),
        ("b3899882", "efficientnet_b3", _TORCHVISION["efficientnet_b3"]),
        ("7eb33cd5", "efficientnet_b4", _TORCHVISION["efficientnet_b4"]),
        ("23ab8bcd", "efficientnet_b4", _TORCHVISION["efficientnet_b4"]),
        ("1a07897c", "efficientnet_b5", _TORCHVISION["efficientnet_b5"]),
        ("24a108a5", "efficientnet_b6", _TORCHVISION["efficientnet_b6"]),
        ("c5b4e57e", "efficientnet_b7", _TORCHVISION["efficientnet_b7"]),
        ("dd5fe13b", "efficientnetv2_s", _TORCHVISION["efficientnetv2_s"]),
        ("dc08266a", "efficientnetv2_m", _TORCHVISION["efficientnetv2_m"]),
        ("59c71312", "efficientnetv2_l", _TORCHVISION["efficientnetv2_l"]),
    )
}
