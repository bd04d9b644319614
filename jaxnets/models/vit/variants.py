"""The registered vision transformers: what makes each of them, how it sees images, and where its weights are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jaxnets.models.conventions import imagenet
from jaxnets.models.family import Entry


@dataclass(frozen=True, kw_only=True)
class Size:
    """A row of Dosovitskiy et al. 2021, table 1; tiny and small are DeiT's (Touvron et al. 2021, table 1)."""

    width: int
    blocks: int
    heads: int

    def fields(self) -> dict[str, Any]:
        return {"width": self.width, "blocks": (self.blocks // 4,) * 4, "heads": self.heads}


SIZES: Mapping[str, Size] = {
    "tiny": Size(width=192, blocks=12, heads=3),
    "small": Size(width=384, blocks=12, heads=6),
    "medium": Size(width=512, blocks=12, heads=8),
    "base": Size(width=768, blocks=12, heads=12),
    "large": Size(width=1024, blocks=24, heads=16),
}

# By size, patch and pixels: the tag of the weights that timm keeps on the Hub; None: there are none for 1,000 classes.
VIT: Mapping[tuple[str, int, int], str | None] = {
    ("tiny", 16, 224): "augreg_in21k_ft_in1k",
    ("tiny", 16, 384): "augreg_in21k_ft_in1k",
    ("small", 32, 224): "augreg_in21k_ft_in1k",
    ("small", 32, 384): "augreg_in21k_ft_in1k",
    ("small", 16, 224): "augreg_in21k_ft_in1k",
    ("small", 16, 384): "augreg_in21k_ft_in1k",
    ("base", 32, 224): "augreg_in21k_ft_in1k",
    ("base", 32, 384): "augreg_in21k_ft_in1k",
    ("base", 16, 224): "augreg2_in21k_ft_in1k",
    ("base", 16, 384): "augreg_in21k_ft_in1k",
    ("large", 32, 224): None,
    ("large", 32, 384): "orig_in21k_ft_in1k",
    ("large", 16, 224): "augreg_in21k_ft_in1k",
    ("large", 16, 384): "augreg_in21k_ft_in1k",
}
DEIT = (("tiny", 224), ("small", 224), ("base", 224), ("base", 384))
DEIT3 = (
    ("small", 224),
    ("small", 384),
    ("medium", 224),
    ("base", 224),
    ("base", 384),
    ("large", 224),
    ("large", 384),
)
# What makes a DeiT III of a ViT (Touvron et al. 2022, section 3.1 and its code).
_DEIT3 = {"token_position": False, "layer_scale": 1e-6}


def _entries() -> Iterator[tuple[str, Entry]]:
    for (size, patch, pixels), tag in VIT.items():
        yield _entry(f"vit_{size}_patch{patch}_{pixels}", SIZES[size].fields(), patch, pixels, tag, half=True)
    averaged = {**SIZES["base"].fields(), "heads": 16, "class_token": False, "pool": "average"}
    yield _entry("vit_base_patch16_gap_224", averaged, 16, 224, None, half=True)
    for size, pixels in DEIT:
        yield _entry(f"deit_{size}_patch16_{pixels}", SIZES[size].fields(), 16, pixels, "fb_in1k", half=False)
    for size, pixels in DEIT3:
        fields = {**SIZES[size].fields(), **_DEIT3}
        yield _entry(f"deit3_{size}_patch16_{pixels}", fields, 16, pixels, "fb_in1k", half=False)
    small = {"patch": (4, 4), "grid": (8, 8), "num_classes": 10}
    yield "vit_tiny_patch4_32", Entry(fields={**SIZES["tiny"].fields(), **small})  # for CIFAR and the like


def _entry(
    name: str, fields: Mapping[str, Any], patch: int, pixels: int, tag: str | None, *, half: bool
) -> tuple[str, Entry]:
    grid = (pixels // patch, pixels // patch)
    return name, Entry(
        fields={**fields, "patch": (patch, patch), "grid": grid, "num_classes": 1000},
        preprocess=imagenet(pixels, 0.9 if pixels == 224 else 1.0, half=half),
        weights=tag and f"hf:timm/{name}.{tag}",
        timm_name=name,
    )


ENTRIES: Mapping[str, Entry] = dict(_entries())
