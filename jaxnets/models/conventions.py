"""What PyTorch's and TensorFlow's models do differently, and how models see ImageNet's images."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from jaxnets.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]  # (low, high) of the rows and of the columns; a negative one crops
DIMENSIONS = ("NHWC", "HWIO", "NHWC")  # of images, kernels and results

PaddingRule = Literal["torch", "same", "valid"]  # valid: none


@dataclass(frozen=True, kw_only=True)
class Convention:
    """How a library's models pad, and keep the statistics of their norms."""

    padding: PaddingRule
    norm_epsilon: float
    norm_decay: float  # weight of the old running value

    def fields(self) -> dict[str, Any]:
        """Returns it as fields of a network."""
        return asdict(self)


TORCH = Convention(padding="torch", norm_epsilon=1e-5, norm_decay=0.9)
TENSORFLOW = Convention(padding="same", norm_epsilon=1e-3, norm_decay=0.99)


def torch_padding(kernel: Pair) -> Padding:
    """Returns (k − 1) / 2 on every side, as PyTorch's models pad odd kernels at any stride."""
    return ((kernel[0] // 2, kernel[0] // 2), (kernel[1] // 2, kernel[1] // 2))


def same_padding(size: tuple[int, ...], kernel: Pair, stride: int) -> Padding:
    """Returns what TensorFlow's SAME pads: as much as ceil(size / stride) outputs need, the odd pixel at the end."""
    totals = [max((-(-n // stride) - 1) * stride + k - n, 0) for n, k in zip(size, kernel, strict=True)]
    return ((totals[0] // 2, totals[0] - totals[0] // 2), (totals[1] // 2, totals[1] - totals[1] // 2))


def padding_of(rule: PaddingRule, size: tuple[int, ...], kernel: Pair, stride: int) -> Padding:
    """Returns what a rule pads images of a size with."""
    if rule == "valid":
        return ((0, 0), (0, 0))
    return same_padding(size, kernel, stride) if rule == "same" else torch_padding(kernel)


def imagenet(
    size: int, crop_fraction: float, interpolation: Literal["bilinear", "bicubic"] = "bicubic", *, half: bool = False
) -> Preprocess:
    """Returns the preprocessing of square RGB images.

    `half` centres pixels on 0.5 and scales them to −1…1, as TensorFlow's models do; otherwise ImageNet's mean and
    deviation do.
    """
    return Preprocess(
        height=size,
        width=size,
        channels=3,
        mean=(0.5, 0.5, 0.5) if half else IMAGENET_MEAN,
        std=(0.5, 0.5, 0.5) if half else IMAGENET_STD,
        crop_fraction=crop_fraction,
        interpolation=interpolation,
    )
