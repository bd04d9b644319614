"""Models by name."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flax import linen as nn

from jaxnets.errors import UserError, nearest
from jaxnets.models.resnet import ResNet, cifar_stages, imagenet_stages


@dataclass(frozen=True)
class Entry:
    module: type[nn.Module]
    fields: Mapping[str, Any]  # what makes the module the model of that name


def _cifar_resnet(depth: int) -> Entry:
    return Entry(
        ResNet,
        {
            "stages": cifar_stages(depth),
            "block": "basic",
            "stem": "cifar",
            "stem_features": 16,
            "num_classes": 10,
            "shortcut": "A",
        },
    )


def _imagenet_resnet(block: str, *blocks: int) -> Entry:
    return Entry(
        ResNet,
        {
            "stages": imagenet_stages(*blocks),
            "block": block,
            "stem": "imagenet",
            "stem_features": 64,
            "num_classes": 1000,
            "zero_init_last_norm": True,
        },
    )


MODELS: Mapping[str, Entry] = {
    "resnet18": _imagenet_resnet("basic", 2, 2, 2, 2),
    "resnet34": _imagenet_resnet("basic", 3, 4, 6, 3),
    "resnet50": _imagenet_resnet("bottleneck", 3, 4, 6, 3),
    "resnet101": _imagenet_resnet("bottleneck", 3, 4, 23, 3),
    "resnet152": _imagenet_resnet("bottleneck", 3, 8, 36, 3),
    "resnet20_cifar": _cifar_resnet(20),
    "resnet32_cifar": _cifar_resnet(32),
    "resnet44_cifar": _cifar_resnet(44),
    "resnet56_cifar": _cifar_resnet(56),
    "resnet110_cifar": _cifar_resnet(110),
}


def list_models() -> list[str]:
    """Returns the names that `create_model` knows."""
    return list(MODELS)


def create_model(name: str, **fields: Any) -> nn.Module:
    """Builds the Linen module of a registered model; `fields` replace its own, for instance `num_classes=10`.

    Raises:
        UserError: for an unknown name or a field that the model does not have.
    """
    if name not in MODELS:
        raise UserError(f"there is no model {name!r}{nearest(name, MODELS)}; known are {', '.join(MODELS)}")
    entry = MODELS[name]
    known = [field.name for field in dataclasses.fields(entry.module) if field.name not in ("parent", "name")]
    for field in fields:
        if field not in known:
            raise UserError(f"{name} has no field {field!r}{nearest(field, known)}; it has {', '.join(known)}")
    return entry.module(**{**entry.fields, **fields})
