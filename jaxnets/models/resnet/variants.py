"""The registered ResNets: what makes each of them, how it sees images, and where its weights are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxnets.models.conventions import imagenet
from jaxnets.models.family import Entry
from jaxnets.models.resnet.network import Stage
from jaxnets.preprocess import Preprocess

_USUAL = imagenet(224, 0.875, "bilinear")


@dataclass(frozen=True, kw_only=True)
class ImageNet:
    """A network of four stages for 1,000 classes, as timm names it."""

    block: Literal["basic", "bottleneck"]
    blocks: tuple[int, int, int, int]  # of the stages
    tag: str  # of the weights that timm keeps on the Hub
    preprocess: Preprocess = _USUAL
    fields: Mapping[str, Any] = field(default_factory=dict)  # what is added to He et al. 2016a, table 1

    def entry(self, name: str) -> Entry:
        own = {
            "stages": imagenet_stages(*self.blocks),
            "block": self.block,
            "stem": "imagenet",
            "stem_features": 64,
            "num_classes": 1000,
            "zero_init_last_norm": True,
        }
        return Entry(
            fields={**own, **self.fields},
            preprocess=self.preprocess,
            weights=f"hf:timm/{name}.{self.tag}",
            timm_name=name,
        )


@dataclass(frozen=True, kw_only=True)
class Cifar:
    """A network of three stages for 32×32 pixels (He et al. 2016a, section 4.2), or a wide one with pre-activation."""

    depth: int
    widening: int | None = None  # times the features, in Zagoruyko & Komodakis' networks

    def entry(self) -> Entry:
        ends = {"block": "basic", "stem": "cifar", "stem_features": 16, "num_classes": 10}
        if self.widening is None:
            return Entry(fields={"stages": cifar_stages(self.depth), "shortcut": "A", **ends})
        return Entry(fields={"stages": wide_stages(self.depth, self.widening), "preactivation": True, **ends})


def cifar_stages(depth: int) -> tuple[Stage, ...]:
    """Returns three stages of n blocks, depth = 6n + 2 (He et al. 2016a, section 4.2)."""
    return _three_stages((depth - 2) // 6, 1)


def wide_stages(depth: int, widening: int) -> tuple[Stage, ...]:
    """Returns three stages of n blocks, depth = 6n + 4 (Zagoruyko & Komodakis 2016, table 1)."""
    return _three_stages((depth - 4) // 6, widening)


def _three_stages(blocks: int, widening: int) -> tuple[Stage, ...]:
    return tuple(
        Stage(blocks=blocks, features=widening * features, stride=stride)
        for features, stride in ((16, 1), (32, 2), (64, 2))
    )


def imagenet_stages(*blocks: int) -> tuple[Stage, ...]:
    """Returns the four stages of He et al. 2016a, table 1, with as many blocks each as given."""
    return tuple(
        Stage(blocks=n, features=features, stride=stride)
        for n, features, stride in zip(blocks, (64, 128, 256, 512), (1, 2, 2, 2), strict=True)
    )


_50, _101, _152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
_D = {"stem": "deep", "shortcut": "D"}
_V2 = {"preactivation": True, "zero_init_last_norm": False}

IMAGENET: Mapping[str, ImageNet] = {
    "resnet18": ImageNet(block="basic", blocks=(2, 2, 2, 2), tag="a1_in1k"),
    "resnet34": ImageNet(block="basic", blocks=(3, 4, 6, 3), tag="a1_in1k"),
    "resnet50": ImageNet(block="bottleneck", blocks=_50, tag="a1_in1k"),
    "resnet101": ImageNet(block="bottleneck", blocks=_101, tag="a1h_in1k"),
    "resnet152": ImageNet(block="bottleneck", blocks=_152, tag="a1h_in1k"),
    "resnet50d": ImageNet(block="bottleneck", blocks=_50, tag="ra2_in1k", preprocess=imagenet(224, 0.875), fields=_D),
    "resnet101d": ImageNet(block="bottleneck", blocks=_101, tag="ra2_in1k", preprocess=imagenet(256, 0.95), fields=_D),
    "resnext50_32x4d": ImageNet(
        block="bottleneck", blocks=_50, tag="a1h_in1k", fields={"groups": 32, "group_width": 4}
    ),
    "resnext101_32x8d": ImageNet(
        block="bottleneck", blocks=_101, tag="tv_in1k", fields={"groups": 32, "group_width": 8}
    ),
    "wide_resnet50_2": ImageNet(block="bottleneck", blocks=_50, tag="racm_in1k", fields={"group_width": 128}),
    "wide_resnet101_2": ImageNet(block="bottleneck", blocks=_101, tag="tv_in1k", fields={"group_width": 128}),
    "seresnet50": ImageNet(
        block="bottleneck",
        blocks=_50,
        tag="a1_in1k",
        preprocess=imagenet(224, 0.95),
        fields={"squeeze_reduction": 16},
    ),
    "resnetv2_50": ImageNet(
        block="bottleneck", blocks=_50, tag="a1h_in1k", preprocess=imagenet(224, 0.95, half=True), fields=_V2
    ),
    "resnetv2_101": ImageNet(
        block="bottleneck", blocks=_101, tag="a1h_in1k", preprocess=imagenet(224, 0.95, half=True), fields=_V2
    ),
}
CIFAR: Mapping[str, Cifar] = {
    "resnet8_cifar": Cifar(depth=8),
    "resnet20_cifar": Cifar(depth=20),
    "resnet32_cifar": Cifar(depth=32),
    "resnet44_cifar": Cifar(depth=44),
    "resnet56_cifar": Cifar(depth=56),
    "resnet110_cifar": Cifar(depth=110),
    "wide_resnet28_10": Cifar(depth=28, widening=10),
    "wide_resnet40_4": Cifar(depth=40, widening=4),
}
ENTRIES: Mapping[str, Entry] = {
    **{name: variant.entry(name) for name, variant in IMAGENET.items()},
    **{name: variant.entry() for name, variant in CIFAR.items()},
}
