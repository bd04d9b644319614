"""The files that torchvision publishes, which do not say themselves what they are or how they want their images."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from jaxnets.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

_LARGEST = 1 << 30  # bytes; the largest of them has 500 MB


@dataclass(frozen=True)
class Published:
    model: str
    preprocess: Preprocess


def _published(model: str, size: int, resized: int, interpolation: str, mean_and_std: float | None = None) -> Published:
    return Published(
        model,
        Preprocess(
            height=size,
            width=size,
            channels=3,
            mean=(mean_and_std,) * 3 if mean_and_std else IMAGENET_MEAN,
            std=(mean_and_std,) * 3 if mean_and_std else IMAGENET_STD,
            crop_fraction=size / resized,
            interpolation=interpolation,
        ),
    )


# By the start of their SHA-256, which torchvision writes into their names (resnet50-11ad3fa6.pth): sizes of the crop
# and of the shorter side before it. Those at 232 are of its second recipe ("IMAGENET1K_V2").
PUBLISHED = {
    "f37072fd": _published("resnet18", 224, 256, "bilinear"),
    "b627a593": _published("resnet34", 224, 256, "bilinear"),
    "0676ba61": _published("resnet50", 224, 256, "bilinear"),
    "11ad3fa6": _published("resnet50", 224, 232, "bilinear"),
    "63fe2227": _published("resnet101", 224, 256, "bilinear"),
    "cd907fc2": _published("resnet101", 224, 232, "bilinear"),
    "394f9c45": _published("resnet152", 224, 256, "bilinear"),
    "f82ba261": _published("resnet152", 224, 232, "bilinear"),
    "7cdf4587": _published("resnext50_32x4d", 224, 256, "bilinear"),
    "1a0047aa": _published("resnext50_32x4d", 224, 232, "bilinear"),
    "8ba56ff5": _published("resnext101_32x8d", 224, 256, "bilinear"),
    "110c445d": _published("resnext101_32x8d", 224, 232, "bilinear"),
    "95faca4d": _published("wide_resnet50_2", 224, 256, "bilinear"),
    "9ba9bcbe": _published("wide_resnet50_2", 224, 232, "bilinear"),
    "32ee1156": _published("wide_resnet101_2", 224, 256, "bilinear"),
    "d733dc28": _published("wide_resnet101_2", 224, 232, "bilinear"),
    "7f5810bc": _published("efficientnet_b0", 224, 256, "bicubic"),
    "bac287d4": _published("efficientnet_b1", 240, 256, "bicubic"),
    "c27df63c": _published("efficientnet_b1", 240, 255, "bilinear"),
    "c35c1473": _published("efficientnet_b2", 288, 288, "bicubic"),
    "b3899882": _published("efficientnet_b3", 300, 320, "bicubic"),
    "23ab8bcd": _published("efficientnet_b4", 380, 384, "bicubic"),
    "1a07897c": _published("efficientnet_b5", 456, 456, "bicubic"),
    "24a108a5": _published("efficientnet_b6", 528, 528, "bicubic"),
    "c5b4e57e": _published("efficientnet_b7", 600, 600, "bicubic"),
    "dd5fe13b": _published("efficientnetv2_s", 384, 384, "bilinear"),
    "dc08266a": _published("efficientnetv2_m", 480, 480, "bilinear"),
    "59c71312": _published("efficientnetv2_l", 480, 480, "bicubic", 0.5),
}


def published(path: Path) -> Published | None:
    """Returns what is known of a file by its content, whatever it is called now."""
    if path.suffix not in (".pth", ".pt", ".bin", "") or path.stat().st_size > _LARGEST:
        return None
    with path.open("rb") as file:
        return PUBLISHED.get(hashlib.file_digest(file, "sha256").hexdigest()[:8])
