"""ConvNeXts in the files of other libraries: under which keys, and what their configurations say."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxnets.models.conventions import imagenet
from jaxnets.models.convnext.network import ConvNeXt, Stage
from jaxnets.models.convnext.variants import SIZES
from jaxnets.models.family import Described, Layout, Path, Published, Stored, block_numbers, differences
from jaxnets.preprocess import Preprocess

Shape = tuple[int, ...]

_HALVING = ("halving_norm", "halving_conv")


@dataclass(frozen=True, kw_only=True)
class Keys:
    """What a library calls the layers; stages and blocks count from 0."""

    layers: Mapping[str, str]  # those of a block begin with `block`
    block: Callable[[int, int], str]  # of (stage, block)
    halving: Callable[[int], str]  # of a stage; the norm and the convolution are 0 and 1 of it
    # By layer: the shape there of an array of a shape here.
    shapes: Mapping[str, Callable[[Shape], Shape]] = field(default_factory=dict)
    conv_mlp: bool = False  # whether the dense layers are 1×1 convolutions there where the model's `conv_mlp` says so

    def of_layer(self, model: ConvNeXt, path: Path) -> str:
        if path[0] in self.layers:
            return self.layers[path[0]]
        stage, block = (number - 1 for number in block_numbers(path[0]))
        if path[1] in _HALVING:
            return f"{self.halving(stage)}.{_HALVING.index(path[1])}"
        return f"{self.block(stage, block)}.{self.layers[path[1]]}"

    def of_parameter(self, model: ConvNeXt, path: Path, shape: Shape) -> Stored | None:
        """LayerScale's belongs to no layer of its own anywhere."""
        layer = path[1]
        if layer != "layer_scale" and layer not in self.shapes:
            return None
        leaf = "" if layer == "layer_scale" else {"scale": ".weight", "bias": ".bias"}[path[-1]]
        return Stored(key=self.of_layer(model, path[:-1]) + leaf, shape=self.shapes.get(layer, tuple)(shape))

    def is_convolution(self, model: ConvNeXt, path: Path) -> bool:
        return self.conv_mlp and model.conv_mlp and path[-1] in ("expand", "project")


_TIMM = Keys(
    layers={
        "stem_conv": "stem.0",
        "stem_norm": "stem.1",
        "depthwise_conv": "conv_dw",
        "norm": "norm",
        "expand": "mlp.fc1",
        "response_norm": "mlp.grn",
        "project": "mlp.fc2",
        "layer_scale": "gamma",
        "last_norm": "head.norm",
        "head": "head.fc",
    },
    block=lambda stage, block: f"stages.{stage}.blocks.{block}",
    halving=lambda stage: f"stages.{stage}.downsample",
    conv_mlp=True,
)
_TORCHVISION = Keys(
    layers={
        "stem_conv": "features.0.0",
        "stem_norm": "features.0.1",
        # Permutations, GELU and the like have the numbers between. V2 is none of theirs.
        "depthwise_conv": "block.0",
        "norm": "block.2",
        "expand": "block.3",
        "response_norm": "block.4",
        "project": "block.5",
        "layer_scale": "layer_scale",
        "last_norm": "classifier.0",
        "head": "classifier.2",
    },
    block=lambda stage, block: f"features.{2 * stage + 1}.{block}",
    halving=lambda stage: f"features.{2 * stage}",
    shapes={"layer_scale": lambda shape: (*shape, 1, 1)},
)


def _transformers(root: str) -> Keys:
    return Keys(
        layers={
            "stem_conv": f"{root}.embeddings.patch_embeddings",
            "stem_norm": f"{root}.embeddings.layernorm",
            "depthwise_conv": "dwconv",
            "norm": "layernorm",
            "expand": "pwconv1",
            "response_norm": "grn",
            "project": "pwconv2",
            "layer_scale": "layer_scale_parameter",
            "last_norm": f"{root}.layernorm",
            "head": "classifier",
        },
        block=lambda stage, block: f"{root}.encoder.stages.{stage}.layers.{block}",
        halving=lambda stage: f"{root}.encoder.stages.{stage}.downsampling_layer",
        shapes={"response_norm": lambda shape: (1, 1, 1, *shape)},
    )


_LAST_EPSILON = 1e-12  # transformers' usual one of the last norm; all others have 1e-6 there too

# How torchvision evaluates its weights: all at 224 pixels, of images whose shorter side has so many.
_OF_TORCHVISION: Mapping[str, Preprocess] = {
    f"convnext_{size}": imagenet(224, 224 / resized, "bilinear")
    for size, resized in (("tiny", 236), ("small", 230), ("base", 232), ("large", 232))
}


def _layout(name: str, keys: Keys, mark: str, **said: Any) -> Layout:
    return Layout(
        name=name,
        mark=mark,
        module_key=keys.of_layer,
        is_convolution=keys.is_convolution,
        parameter=keys.of_parameter,
        **said,
    )


LAYOUTS: tuple[Layout, ...] = (
    _layout("timm", _TIMM, "stages.0.blocks.0.conv_dw.weight"),
    _layout("torchvision", _TORCHVISION, "features.1.0.layer_scale", preprocess=_OF_TORCHVISION.get),
    *(
        _layout(
            "transformers",
            _transformers(root),
            f"{root}.embeddings.patch_embeddings.weight",
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
    digest: Published(model=name, preprocess=_OF_TORCHVISION[name])
    for digest, name in (
        ("983f1562", "convnext_tiny"),
        ("0c510722", "convnext_small"),
        ("6075fbad", "convnext_base"),
        ("ea097f82", "convnext_large"),
    )
}
