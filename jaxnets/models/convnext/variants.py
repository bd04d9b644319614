"""The registered ConvNeXts: what makes each of them, how it sees images, and where its weights are.

They are those of timm by its names, in both versions: its atto to nano have the authors' stem and no other. The weights
of V2 are the authors', whose licence (CC BY-NC 4.0) allows no commercial use.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jaxnets.models.conventions import imagenet
from jaxnets.models.convnext.network import Stage
from jaxnets.models.family import Entry


@dataclass(frozen=True, kw_only=True)
class Release:
    """What differs between a size's two versions beside the network.

    Stochastic depth is that of the authors' training on ImageNet-1K (Liu et al. 2022, table 5; TRAINING.md in the
    repository of Woo et al. 2023), and 0 where they don't say.
    """

    tag: str | None  # of timm's weights on the Hub; None: there are none
    crop_fraction: float = 0.875  # that these are evaluated with
    stochastic_depth: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Size:
    """A size of Liu et al. 2022 (section 3); those below tiny are timm's, taken over by Woo et al. 2023."""

    blocks: tuple[int, int, int, int]
    features: int  # of the first stage; each further one has twice as many
    v1: Release
    v2: Release
    conv_mlp: bool = False  # as timm keeps its weights

    @property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(Stage(blocks=n, features=self.features * 2**i) for i, n in enumerate(self.blocks))


_IN1K, _IN22K = "fcmae_ft_in1k", "fcmae_ft_in22k_in1k"
SIZES: Mapping[str, Size] = {
    "atto": Size(
        blocks=(2, 2, 6, 2),
        features=40,
        conv_mlp=True,
        v1=Release(tag="d2_in1k"),
        v2=Release(tag=_IN1K, stochastic_depth=0.1),
    ),
    "femto": Size(blocks=(2, 2, 6, 2), features=48, conv_mlp=True, v1=Release(tag="d1_in1k"), v2=Release(tag=_IN1K)),
    "pico": Size(blocks=(2, 2, 6, 2), features=64, conv_mlp=True, v1=Release(tag="d1_in1k"), v2=Release(tag=_IN1K)),
    "nano": Size(
        blocks=(2, 2, 8, 2),
        features=80,
        conv_mlp=True,
        v1=Release(tag="in12k_ft_in1k", crop_fraction=0.95),
        v2=Release(tag=_IN22K),
    ),
    "tiny": Size(
        blocks=(3, 3, 9, 3),
        features=96,
        v1=Release(tag="in12k_ft_in1k", crop_fraction=0.95, stochastic_depth=0.1),
        v2=Release(tag=_IN22K, stochastic_depth=0.2),
    ),
    "small": Size(
        blocks=(3, 3, 27, 3),
        features=96,
        v1=Release(tag="in12k_ft_in1k", crop_fraction=0.95, stochastic_depth=0.4),
        v2=Release(tag=None),
    ),
    "base": Size(
        blocks=(3, 3, 27, 3),
        features=128,
        v1=Release(tag="fb_in22k_ft_in1k", stochastic_depth=0.5),
        v2=Release(tag=_IN22K, stochastic_depth=0.1),
    ),
    "large": Size(
        blocks=(3, 3, 27, 3),
        features=192,
        v1=Release(tag="fb_in22k_ft_in1k", stochastic_depth=0.5),
        v2=Release(tag=_IN22K),
    ),
}
# LayerScale is unnecessary beside global response normalisation (Woo et al. 2023).
V2_FIELDS: Mapping[str, Any] = {"layer_scale": None, "response_norm": True}


def _entries() -> Iterator[tuple[str, Entry]]:
    for size, own in SIZES.items():
        yield f"convnext_{size}", _entry(f"convnext_{size}", own, own.v1, {})
    for size, own in SIZES.items():
        yield f"convnextv2_{size}", _entry(f"convnextv2_{size}", own, own.v2, V2_FIELDS)


def _entry(name: str, size: Size, release: Release, fields: Mapping[str, Any]) -> Entry:
    own = {"stages": size.stages, "num_classes": 1000, "conv_mlp": size.conv_mlp}
    return Entry(
        fields={**own, **fields, "stochastic_depth": release.stochastic_depth},
        preprocess=imagenet(224, release.crop_fraction),
        weights=release.tag and f"hf:timm/{name}.{release.tag}",
        timm_name=name,
    )


ENTRIES: Mapping[str, Entry] = dict(_entries())
