"""ConvNeXts in the files of other libraries: under which keys, and what their configurations say."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from jaxnets.models.conventions import imagenet
from jaxnets.models.convnext.network import ConvNeXt, Stage
from jaxnets.models.convnext.variants import SIZES
from jaxnets.models.family import Described, Layout, Path, Published, Stored, block_numbers, differences
from jaxnets.preprocess import Preprocess

Shape = tuple[int, ...]


def _timm(model: ConvNeXt, path: Path) -> str:
    ends = {"stem_conv": "stem.0", "stem_norm": "stem.1", "last_norm": "head.norm", "head": "head.fc"}
    if path[0] in ends:
        return ends[path[0]]
    stage, block = block_numbers(path[0])
    if path[1] in _HALVING:
        return f"stages.{stage - 1}.downsample.{_HALVING.index(path[1])}"
    names = {
        "depthwise_conv": "conv_dw",
        "norm": "norm",
        "expand": "mlp.fc1",
        "response_norm": "mlp.grn",
        "project": "mlp.fc2",
    }
    return f"stages.{stage - 1}.blocks.{block - 1}.{names[path[1]]}"


def _timm_parameter(model: ConvNeXt, path: Path, shape: Shape) -> Stored | None:
    if "layer_scale" not in path:
        return None
    stage, block = block_numbers(path[0])
    return Stored(key=f"stages.{stage - 1}.blocks.{block - 1}.gamma", shape=shape)


def _is_convolution(model: ConvNeXt, path: Path) -> bool:
    return model.conv_mlp and path[-1] in ("expand", "project")


def _torchvision(model: ConvNeXt, path: Path) -> str:
    ends = {
        "stem_conv": "features.0.0",
        "stem_norm": "features.0.1",
        "last_norm": "classifier.0",
        "head": "classifier.2",
    }
    if path[0] in ends:
        return ends[path[0]]
    stage, block = block_numbers(path[0])
    if path[1] in _HALVING:
        return f"features.{2 * stage - 2}.{_HALVING.index(path[1])}"
    # Permutations, GELU and the like have the numbers between. V2 is none of theirs.
    numbers = {"depthwise_conv": 0, "norm": 2, "expand": 3, "response_norm": 4, "project": 5}
    return f"features.{2 * stage - 1}.{block - 1}.block.{numbers[path[1]]}"


def _torchvision_parameter(model: ConvNeXt, path: Path, shape: Shape) -> Stored | None:
    if "layer_scale" not in path:
        return None
    stage, block = block_numbers(path[0])
    return Stored(key=f"features.{2 * stage - 1}.{block - 1}.layer_scale", shape=(*shape, 1, 1))


def _transformers(root: str, model: ConvNeXt, path: Path) -> str:
    ends = {
        "stem_conv": f"{root}.embeddings.patch_embeddings",
        "stem_norm": f"{root}.embeddings.layernorm",
        "last_norm": f"{root}.layernorm",
        "head": "classifier",
    }
    if path[0] in ends:
        return ends[path[0]]
    stage, block = block_numbers(path[0])
    if path[1] in _HALVING:
        return f"{root}.encoder.stages.{stage - 1}.downsampling_layer.{_HALVING.index(path[1])}"
    names = {
        "depthwise_conv": "dwconv",
        "norm": "layernorm",
        "expand": "pwconv1",
        "response_norm": "grn",
        "project": "pwconv2",
    }
    return f"{root}.encoder.stages.{stage - 1}.layers.{block - 1}.{names[path[1]]}"


def _transformers_parameter(root: str, model: ConvNeXt, path: Path, shape: Shape) -> Stored | None:
    if "response_norm" in path:
        leaf = {"scale": "weight", "bias": "bias"}[path[-1]]
        return Stored(key=f"{_transformers(root, model, path[:-1])}.{leaf}", shape=(1, 1, 1, *shape))
    if "layer_scale" in path:
        stage, block = block_numbers(path[0])
        key = f"{root}.encoder.stages.{stage - 1}.layers.{block - 1}.layer_scale_parameter"
        return Stored(key=key, shape=shape)
    return None


_HALVING = ("halving_norm", "halving_conv")
_LAST_EPSILON = 1e-12  # transformers' usual one of the last norm; all others have 1e-6 there too

# How torchvision evaluates its weights: all at 224 pixels, of images whose shorter side has so many.
_TORCHVISION: Mapping[str, Preprocess] = {
    f"convnext_{size}": imagenet(224, 224 / resized, "bilinear")
    for size, resized in (("tiny", 236), ("small", 230), ("base", 232), ("large", 232))
}


def _torchvision_preprocess(name: str) -> Preprocess | None:
    return _TORCHVISION.get(name)


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="timm",
        mark="stages.0.blocks.0.conv_dw.weight",
        module_key=_timm,
        is_convolution=_is_convolution,
        parameter=_timm_parameter,
    ),
    Layout(
        name="torchvision",
        mark="features.1.0.layer_scale",
        module_key=_torchvision,
        parameter=_torchvision_parameter,
        preprocess=_torchvision_preprocess,
    ),
    *(
        Layout(
            name="transformers",
            mark=f"{root}.embeddings.patch_embeddings.weight",
            module_key=partial(_transformers, root),
            parameter=partial(_transformers_parameter, root),
            fields=lambda name: {"last_norm_epsilon": _LAST_EPSILON},
        )
        for root in ("convnext", "convnextv2")
    ),
)

_BY_STAGES = {size.stages: name for name, size in SIZES.items()}


def of_transformers(config: Mapping[str, Any]) -> Described:
    """Returns the model that transformers' config.json of a ConvNeXt, V1 or V2, describes."""
    blocks, features = config.get("depths", (3, 3, 9, 3)), config.get("hidden_sizes", (96, 192, 384, 768))
    size = _BY_STAGES.get(tuple(Stage(blocks=n, features=f) for n, f in zip(blocks, features, strict=True)))
    version = str(config["model_type"])
    fields: dict[str, Any] = {"last_norm_epsilon": float(config.get("layer_norm_eps", _LAST_EPSILON))}
    if version == "convnext" and config.get("layer_scale_init_value") == 0:
        fields["layer_scale"] = None
    return Described(
        name=size and f"{version}_{size}",
        differences=differences(config, {"patch_size": 4, "num_stages": 4, "hidden_act": "gelu"}),
        fields=fields,
    )


PUBLISHED: Mapping[str, Published] = {
    digest: Published(model=name, preprocess=_TORCHVISION[name])
    for digest, name in (
        ("983f1562", "convnext_tiny"),
        ("0c510722", "convnext_small"),
        ("6075fbad", "convnext_base"),
        ("ea097f82", "convnext_large"),
    )
}
