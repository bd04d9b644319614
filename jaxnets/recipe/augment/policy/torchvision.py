"""torchvision's policies (`torchvision.transforms.autoaugment`): strengths in bins, signs for enhancements too."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32

from jaxnets.recipe.augment.op import Keys
from jaxnets.recipe.augment.policy import sub_policies
from jaxnets.recipe.augment.policy.dialect import AsPillow, Fill, Filter
from jaxnets.recipe.augment.policy.draws import chosen, draw, happens, one_of
from jaxnets.recipe.augment.policy.layer import Kind, Layer
from jaxnets.recipe.augment.policy.sub_policies import SubPolicies
from jaxnets.schema import Natural, NonNegative, Range

OPS = (
    Kind.IDENTITY, Kind.SHEAR_X, Kind.SHEAR_Y, Kind.TRANSLATE_X, Kind.TRANSLATE_Y, Kind.ROTATE, Kind.BRIGHTNESS,
    Kind.COLOR, Kind.CONTRAST, Kind.SHARPNESS, Kind.POSTERIZE, Kind.SOLARIZE, Kind.AUTOCONTRAST, Kind.EQUALIZE,
)  # fmt: skip
_ENHANCING = (Kind.BRIGHTNESS, Kind.COLOR, Kind.CONTRAST, Kind.SHARPNESS)
_MOVED = 150 / 331  # share of a side in the top bin
_AUTO_BINS = 10  # of AutoAugment


@dataclass(frozen=True, kw_only=True)
class TorchvisionRandAugment(AsPillow):
    """RandAugment (Cubuk et al. 2020, arXiv 1909.13719) in torchvision's dialect, where every op is applied."""

    layers: Annotated[int, Range(1, 8)] = 2  # ops drawn for each image, one after the other (num_ops)
    magnitude: Natural = 9  # bin of all strengths, from 0: 9 of 31 is 0.3 of the range
    bins: Annotated[int, Range(2)] = 31  # from none to the whole range (num_magnitude_bins)
    filter: Filter = "bilinear"  # of what is sheared, moved or turned: of the reference scripts; the class: nearest
    fill: Fill = "black"  # what they leave bare: black, grey (128) or the mean colour

    def draw(self, keys: Keys, height: int, width: int) -> tuple[Layer, ...]:
        draws = draw(keys, self.layers)
        kind = chosen(jnp.asarray(OPS, jnp.int32), one_of(draws.op, len(OPS)))
        amount = amounts(
            auto_ranges(self.bins, height, width), kind, jnp.full_like(kind, self.magnitude), draws.signs()
        )
        return tuple(Layer(kind[:, i], amount[:, i]) for i in range(self.layers))


@dataclass(frozen=True, kw_only=True)
class TrivialAugmentWide(AsPillow):
    """One op for each image, its strength drawn evenly (Müller and Hutter 2021, arXiv 2103.10158), as torchvision."""

    bins: Annotated[int, Range(2)] = 31  # from none to the whole range (num_magnitude_bins)
    translation: NonNegative = 32.0  # pixels in the top bin, whatever the image's size: of small ones, all
    filter: Filter = "bilinear"  # of what is sheared, moved or turned: of the reference scripts; the class: nearest
    fill: Fill = "black"  # what they leave bare: black, grey (128) or the mean colour

    def draw(self, keys: Keys, height: int, width: int) -> tuple[Layer, ...]:
        draws = draw(keys, 1)
        kind = chosen(jnp.asarray(OPS, jnp.int32), one_of(draws.op, len(OPS)))
        amount = amounts(self.ranges(), kind, one_of(draws.level, self.bins), draws.signs())
        return (Layer(kind[:, 0], amount[:, 0]),)

    def ranges(self) -> dict[Kind, np.ndarray]:
        sides = (self.translation, self.translation)
        return _ranges(self.bins, shear=0.99, translate=sides, rotate=135, enhance=0.99, bits=6)


@dataclass(frozen=True, kw_only=True)
class AutoAugmentImagenet(AsPillow):
    """The paper's policy for ImageNet (Cubuk et al. 2019, arXiv 1805.09501, table 9), in torchvision's dialect.

    Magnitude 9 is the whole range (timm's and TensorFlow's: 0.9 of it), and half of the enhancements lessen.
    """

    filter: Filter = "bilinear"  # of what is sheared, moved or turned: of the reference scripts; the class: nearest
    fill: Fill = "black"  # what they leave bare: black, grey (128) or the mean colour

    def draw(self, keys: Keys, height: int, width: int) -> tuple[Layer, ...]:
        return draw_pair(sub_policies.IMAGENET, keys, height, width)


@dataclass(frozen=True, kw_only=True)
class AutoAugmentCifar10(AsPillow):
    """The paper's policy for CIFAR-10 (Cubuk et al. 2019, arXiv 1805.09501, table 7), in torchvision's dialect.

    The authors' own training draws from 95 pairs, and erases a square of 16 pixels afterwards (`augment.cutout`).
    """

    filter: Filter = "bilinear"  # of what is sheared, moved or turned: of the reference scripts; the class: nearest
    fill: Fill = "black"  # what they leave bare: black, grey (128) or the mean colour

    def draw(self, keys: Keys, height: int, width: int) -> tuple[Layer, ...]:
        return draw_pair(sub_policies.CIFAR10, keys, height, width)


def draw_pair(policy: SubPolicies, keys: Keys, height: int, width: int) -> tuple[Layer, ...]:
    draws = draw(keys, 2)
    pair = one_of(draws.op[:, 0], len(policy.kind))
    kind, probability = chosen(jnp.asarray(policy.kind), pair), chosen(jnp.asarray(policy.probability), pair)
    kind = jnp.where(happens(draws.applied, probability), kind, Kind.IDENTITY)
    magnitude = chosen(jnp.asarray(policy.magnitude), pair)
    amount = amounts(auto_ranges(_AUTO_BINS, height, width), kind, magnitude, draws.signs())
    return tuple(Layer(kind[:, i], amount[:, i]) for i in range(2))


def auto_ranges(bins: int, height: int, width: int) -> dict[Kind, np.ndarray]:
    """Returns the strengths of AutoAugment and RandAugment, a value for each bin."""
    sides = (_MOVED * height, _MOVED * width)
    return _ranges(bins, shear=0.3, translate=sides, rotate=30, enhance=0.9, bits=4)


def _ranges(
    bins: int, *, shear: float, translate: tuple[float, float], rotate: float, enhance: float, bits: int
) -> dict[Kind, np.ndarray]:
    down, across = translate
    return {
        Kind.SHEAR_X: np.linspace(0, shear, bins),
        Kind.SHEAR_Y: np.linspace(0, shear, bins),
        Kind.TRANSLATE_X: np.trunc(np.linspace(0, across, bins)),  # whole pixels
        Kind.TRANSLATE_Y: np.trunc(np.linspace(0, down, bins)),
        Kind.ROTATE: np.linspace(0, rotate, bins),
        **dict.fromkeys(_ENHANCING, np.linspace(0, enhance, bins)),
        Kind.POSTERIZE: 8 - np.round(np.arange(bins) / ((bins - 1) / bits)),
        Kind.SOLARIZE: np.linspace(255, 0, bins),
    }


def amounts(
    ranges: Mapping[Kind, np.ndarray],
    kind: Int32[Array, "b layers"],
    number: Int32[Array, "b layers"],
    sign: Float32[Array, "b layers"],
) -> Float32[Array, "b layers"]:
    """Returns the amounts of these ops at bins of these numbers, half of them negative where an op has a sign."""
    bins = len(ranges[Kind.ROTATE])
    table = np.stack([ranges.get(name, np.zeros(bins)) for name in Kind]).astype(np.float32)
    unsigned = [name not in ranges or name in (Kind.POSTERIZE, Kind.SOLARIZE) for name in Kind]
    middle = np.isin(list(Kind), _ENHANCING).astype(np.float32)
    strength = jnp.take(jnp.asarray(table).reshape(-1), kind * bins + number)
    signed = jnp.where(chosen(jnp.asarray(unsigned), kind), strength, sign * strength)
    return chosen(jnp.asarray(middle), kind) + signed
