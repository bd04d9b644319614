"""Small networks with live weights, for tests of what is done with a trained one."""

from typing import Any

import jax
import numpy as np
from flax import linen as nn

from jaxnets import create_model
from jaxnets.classifier import Classifier
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.convnext.network import Stage as ConvNeXtStage
from jaxnets.models.efficientnet.network import Stage as MBConvStage
from jaxnets.models.resnet.network import Stage
from jaxnets.preprocess import Preprocess

SEEN = Preprocess(
    height=33,
    width=32,
    channels=3,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.3, 0.25),
    crop_fraction=0.9,
    interpolation="bicubic",
)
_STAGES = (Stage(blocks=1, features=8, stride=1), Stage(blocks=2, features=16, stride=2))
_SHORT = {"stages": _STAGES, "stem_features": 8}
_MBCONV = tuple(
    MBConvStage(kernel=k, repeats=n, stride=s, expand=e, features=f, squeeze=q, fused=fused)
    for k, n, s, e, f, q, fused in (
        (3, 2, 1, 1, 8, 0.0, True),
        (3, 1, 2, 4, 16, 0.0, True),
        (5, 2, 2, 4, 16, 0.25, False),
        (3, 1, 1, 1, 16, 0.25, False),
    )
)
_CONVNEXT = {"stages": (ConvNeXtStage(blocks=1, features=8), ConvNeXtStage(blocks=2, features=16))}
_VIT = {"patch": (11, 8), "grid": (3, 4), "width": 16, "blocks": (1, 2), "heads": 2}
# One small network for each family and each kind of block.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "cifar": ("resnet20_cifar", _SHORT),
    "wide": ("wide_resnet40_4", _SHORT),
    "imagenet": ("resnet18", _SHORT),
    "bottleneck": ("resnet50", _SHORT),
    "resnet-d": ("resnet50d", _SHORT),
    "resnext": ("resnext50_32x4d", {**_SHORT, "stages": tuple(
        Stage(blocks=1, features=64, stride=s) for s in (1, 2)), "groups": 4}),
    "gated": ("seresnet50", {**_SHORT, "squeeze_reduction": 4}),
    "preactivated": ("resnetv2_50", _SHORT),
    "efficientnet": ("efficientnet_b0", {"stages": _MBCONV, "stem_features": 8, "top_features": 32}),
    "tf_efficientnet": ("tf_efficientnet_b0", {"stages": _MBCONV, "stem_features": 8, "top_features": 32}),
    "convnext": ("convnext_tiny", _CONVNEXT),
    "convnextv2": ("convnextv2_atto", _CONVNEXT),
    "vit": ("vit_tiny_patch16_224", _VIT),
    "deit3": ("deit3_small_patch16_224", _VIT),
    "averaged": ("vit_base_patch16_gap_224", _VIT),
    "lite": ("tf_efficientnet_lite0", {"stages": _MBCONV, "stem_features": 8, "top_features": 32}),
}  # fmt: skip


def live(model: nn.Module, preprocess: Preprocess, seed: int = 0) -> dict[str, Any]:
    """Returns random variables, whose norms and statistics are not those of a new network."""
    image = np.zeros((1, preprocess.height, preprocess.width, preprocess.channels), np.float32)
    with plain_convolutions():
        shapes: Any = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    random = np.random.default_rng(seed)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        name = path[-1].key
        if name == "kernel":
            return random.normal(0, np.sqrt(2 / max(np.prod(leaf.shape[:-1]), 1)), leaf.shape).astype(np.float32)
        if name in ("scale", "var"):
            return random.uniform(0.6, 1.5, leaf.shape).astype(np.float32)
        return random.normal(0, 0.2, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def classifier(family: str = "cifar", classes: int = 5, *, single_output: bool = False, **options: Any) -> Classifier:
    name, fields = FAMILIES[family]
    preprocess = options.pop("preprocess", SEEN)
    model = create_model(name, num_classes=classes, single_output=single_output, preprocess=preprocess, **fields)
    return Classifier(
        name=name,
        model=model,
        variables=live(model, preprocess),
        preprocess=preprocess,
        labels=tuple(f"class {i}" for i in range(classes)),
        step=None,
        **options,
    )


def images(count: int = 3, seed: int = 0) -> list[np.ndarray]:
    """Returns uint8 images of different sizes."""
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (40 + 3 * i, 50 - i, 3), np.uint8) for i in range(count)]
