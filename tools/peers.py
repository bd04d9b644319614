"""The original implementations that jaxnets' conversions are compared with, as a table of PyTorch modules.

Needs torch, timm, torchvision, transformers, efficientnet-pytorch and efficientnet-lite-pytorch; each is imported where
its models are built, so that a part of them is enough for a part of the table.
"""

import importlib.metadata
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from jaxnets.models.convnext.variants import ENTRIES as CONVNEXTS
from jaxnets.models.vit.variants import ENTRIES as VITS


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A model of another library beside ours."""

    library: str  # as its distribution is called
    theirs: str  # its name there
    ours: str  # its name here
    build: Callable[..., nn.Module]  # with `classes`; and `size` (pixels) where that fixes the padding
    any_size: bool  # the padding follows the input; if not, the native size is the only one
    patch: int = 1  # pixels that each side is a multiple of

    @property
    def label(self) -> str:
        return f"{self.library}/{self.theirs}"


class _Logits(nn.Module):
    """A transformers model that returns its logits alone."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x).logits


def state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """Returns the state dict under the keys that the library writes to its files."""
    if not isinstance(model, _Logits):
        return model.state_dict()
    # In memory a transformer's keys are others.
    with tempfile.TemporaryDirectory() as folder:
        model.model.save_pretrained(folder)
        counters = {key: x for key, x in model.model.state_dict().items() if key.endswith("num_batches_tracked")}
        return load_file(Path(folder) / "model.safetensors") | counters


def load_state_dict(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    if not isinstance(model, _Logits):
        model.load_state_dict(state)
        return
    with tempfile.TemporaryDirectory() as folder:
        model.model.save_pretrained(folder)
        arrays = {key: x.contiguous() for key, x in state.items()}
        save_file(arrays, Path(folder) / "model.safetensors", {"format": "pt"})
        model.model.load_state_dict(type(model.model).from_pretrained(folder).state_dict())


def versions() -> dict[str, str]:
    """Returns those of all that is installed here."""
    names = ("jaxnets", "jax", "flax", "numpy", "torch", *sorted({peer.library for peer in PEERS}))
    installed = {name for names in importlib.metadata.packages_distributions().values() for name in names}
    return {name: importlib.metadata.version(name) for name in names if name in installed}


def _timm(name: str, *, classes: int = 1000) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=classes)


def _torchvision(name: str, *, classes: int = 1000) -> nn.Module:
    import torchvision

    return torchvision.models.get_model(name, weights=None, num_classes=classes)


def _transformers_resnet(*, classes: int = 1000, **fields: Any) -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    return _Logits(ResNetForImageClassification(ResNetConfig(num_labels=classes, **fields)))


def _transformers_efficientnet(
    width: float, depth: float, features: int, padding: list[int], *, classes: int = 1000
) -> nn.Module:
    from transformers import EfficientNetConfig, EfficientNetForImageClassification

    config = EfficientNetConfig(
        width_coefficient=width,
        depth_coefficient=depth,
        hidden_dim=features,
        depthwise_padding=padding,
        num_labels=classes,
    )
    return _Logits(EfficientNetForImageClassification(config))


def _timm_vit(name: str, *, classes: int = 1000) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=classes, dynamic_img_size=True)


def _torchvision_vit(layers: int, heads: int, width: int, *, classes: int = 1000, size: int = 224) -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(size, 16, layers, heads, width, 4 * width, num_classes=classes)


def _transformers_vit(layers: int, heads: int, width: int, *, classes: int = 1000, size: int = 224) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        image_size=size,
        num_labels=classes,
    )
    return _Logits(ViTForImageClassification(config))


def _efficientnet_pytorch(name: str, *, classes: int = 1000, size: int | None = None) -> nn.Module:
    from efficientnet_pytorch import EfficientNet

    return EfficientNet.from_name(name, num_classes=classes, **_image_size(size))


def _efficientnet_lite(name: str, *, classes: int = 1000, size: int | None = None) -> nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name(name, num_classes=classes, **_image_size(size))


def _transformers_convnext(version: str, *, classes: int = 1000, **fields: Any) -> nn.Module:
    import transformers

    config, network = (
        getattr(transformers, f"ConvNext{version}{kind}") for kind in ("Config", "ForImageClassification")
    )
    return _Logits(network(config(num_labels=classes, **fields)))


def _image_size(size: int | None) -> dict[str, int]:
    return {} if size is None else {"image_size": size}


_TIMM = [
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnet50d",
    "resnet101d",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "seresnet50",
    "resnetv2_50",
    "resnetv2_101",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b4",
    "efficientnet_lite0",
    "efficientnetv2_s",
    "tf_efficientnet_b0",
    "tf_efficientnet_b3",
    "tf_efficientnet_b8",
    "tf_efficientnet_lite2",
    "tf_efficientnetv2_s",
    "tf_efficientnetv2_m",
    "tf_efficientnetv2_b0",
    "tf_efficientnetv2_b1",
    "tf_efficientnetv2_b3",
    *CONVNEXTS,
]
_TIMM_VITS = [name for name in VITS if name != "vit_tiny_patch4_32"]  # which timm has not
_VITS = {"tiny": (12, 3, 192), "base": (12, 12, 768)}  # layers, heads and width
_TORCHVISION = [
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "efficientnet_b0",
    "efficientnet_b2",
    "efficientnet_b5",
    "efficientnet_v2_s",
    "efficientnet_v2_m",
    "efficientnet_v2_l",
    "convnext_tiny",
]
# As the configurations of microsoft/resnet-18 and its like on the hub have them.
_TRANSFORMERS_RESNETS = {
    18: {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]},
    34: {"layer_type": "basic", "depths": [3, 4, 6, 3], "hidden_sizes": [64, 128, 256, 512]},
    50: {"layer_type": "bottleneck", "depths": [3, 4, 6, 3], "hidden_sizes": [256, 512, 1024, 2048]},
    101: {"layer_type": "bottleneck", "depths": [3, 4, 23, 3], "hidden_sizes": [256, 512, 1024, 2048]},
}
# As those of google/efficientnet-b0 and its like: width, depth, last features, blocks that pad on both sides.
_TRANSFORMERS_EFFICIENTNETS: dict[str, tuple[float, float, int, list[int]]] = {
    "b0": (1.0, 1.0, 1280, []),
    "b1": (1.0, 1.1, 1280, [16]),
    "b2": (1.1, 1.2, 1408, [5, 8, 16]),
    "b3": (1.2, 1.4, 1536, [5, 18]),
}


# As those of facebook/convnext-tiny-224 and facebook/convnextv2-tiny-1k-224 and their like.
_TRANSFORMERS_CONVNEXTS = {
    "atto": {"depths": [2, 2, 6, 2], "hidden_sizes": [40, 80, 160, 320]},
    "tiny": {"depths": [3, 3, 9, 3], "hidden_sizes": [96, 192, 384, 768]},
}


def _peers() -> Iterator[Peer]:
    for name in _TIMM:
        yield Peer(library="timm", theirs=name, ours=name, build=partial(_timm, name), any_size=True)
    for name in _TORCHVISION:
        ours = name.replace("net_v2", "netv2")
        yield Peer(library="torchvision", theirs=name, ours=ours, build=partial(_torchvision, name), any_size=True)
    for name in _TIMM_VITS:
        patch = 32 if "patch32" in name else 16
        build = partial(_timm_vit, name)
        yield Peer(library="timm", theirs=name, ours=name, build=build, any_size=True, patch=patch)
    for size, numbers in _VITS.items():
        for library, vit in (("torchvision", _torchvision_vit), ("transformers", _transformers_vit)):
            yield Peer(
                library=library,
                theirs=f"vit-{size}",
                ours=f"vit_{size}_patch16_224",
                build=partial(vit, *numbers),
                any_size=False,
                patch=16,
            )
    for depth, fields in _TRANSFORMERS_RESNETS.items():
        build = partial(_transformers_resnet, **fields)
        yield Peer(library="transformers", theirs=f"resnet-{depth}", ours=f"resnet{depth}", build=build, any_size=True)
    for size, numbers in _TRANSFORMERS_EFFICIENTNETS.items():
        yield Peer(
            library="transformers",
            theirs=f"efficientnet-{size}",
            ours=f"efficientnet_{size}",
            build=partial(_transformers_efficientnet, *numbers),
            any_size=False,
        )
    for version in ("", "V2"):
        for size, fields in _TRANSFORMERS_CONVNEXTS.items():
            family = f"convnext{version.lower()}"
            build = partial(_transformers_convnext, version, **fields)
            yield Peer(
                library="transformers", theirs=f"{family}-{size}", ours=f"{family}_{size}", build=build, any_size=True
            )
    for library, build, sizes in (
        ("efficientnet-pytorch", _efficientnet_pytorch, ("b0", "b1", "b4")),
        ("efficientnet-lite-pytorch", _efficientnet_lite, ("lite0", "lite1", "lite2")),
    ):
        for size in sizes:
            name = f"efficientnet-{size}"
            yield Peer(
                library=library,
                theirs=name,
                ours=name.replace("-", "_"),
                build=partial(build, name),
                any_size=False,
            )


PEERS = tuple(_peers())
