"""timm's policies (`timm.data.auto_augment`): strengths that scatter, ops that are left out half of the time.

Both take the bilinear filter alone, where timm draws it or the bicubic one for each op.
"""

from dataclasses import dataclass
from typing import Annotated

import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, Float32, Int32

from jaxnets.recipe.augment.op import Keys
from jaxnets.recipe.augment.policy import sub_policies
from jaxnets.recipe.augment.policy.dialect import AsPillow, Fill, Filter
from jaxnets.recipe.augment.policy.draws import Draws, chosen, draw, happens, one_of
from jaxnets.recipe.augment.policy.layer import Kind, Layer
from jaxnets.schema import NonNegative, Range, ZeroToOne

OPS = (
    Kind.AUTOCONTRAST, Kind.EQUALIZE, Kind.INVERT, Kind.ROTATE, Kind.POSTERIZE, Kind.SOLARIZE, Kind.SOLARIZE_ADD,
    Kind.COLOR, Kind.CONTRAST, Kind.BRIGHTNESS, Kind.SHARPNESS, Kind.SHEAR_X, Kind.SHEAR_Y, Kind.TRANSLATE_X,
    Kind.TRANSLATE_Y,
)  # fmt: skip
_EVEN = 100.0  # a spread above it stands for magnitudes drawn evenly
_MOVED = 0.45  # share of a side at magnitude 10
_ENHANCING = (Kind.COLOR, Kind.CONTRAST, Kind.BRIGHTNESS, Kind.SHARPNESS)


@dataclass(frozen=True, kw_only=True)
class TimmRandAugment(AsPillow):
    """RandAugment (Cubuk et al. 2020, arXiv 1909.13719) in timm's dialect; the defaults are `rand-m9-mstd0.5-inc1`."""

    layers: Annotated[int, Range(1, 8)] = 2  # ops drawn for each image, one after the other (timm: n)
    magnitude: NonNegative = 9.0  # of all ops, 10 as a rule at most (m)
    magnitude_std: NonNegative = 0.5  # of magnitudes about it; above 100: evenly from 0 to it instead (mstd)
    magnitude_max: Annotated[float, Range(0, 20, without_low=True)] = (
        10.0  # of one op after that, 10 is the end of all ranges (mmax)
    )
    increasing: bool = True  # a higher magnitude is a stronger op, also to posterize, solarize and enhance (inc1)
    probability: ZeroToOne = 0.5  # of each op, that it is applied (p)
    filter: Filter = "bilinear"  # of what is sheared, moved or turned
    fill: Fill = "mean"  # what they leave bare: black, grey (128) or the mean colour

    def draw(self, keys: Keys, height: int, width: int) -> tuple[Layer, ...]:
        draws = draw(keys, self.layers)
        kind = chosen(jnp.asarray(OPS, jnp.int32), one_of(draws.op, len(OPS)))
        kind = jnp.where(happens(draws.applied, self.probability), kind, Kind.IDENTITY)
        magnitude = jnp.full(kind.shape, self.magnitude, jnp.float32)
        magnitude = scattered(draws, magnitude, self.magnitude_std, self.magnitude_max)
        amount = amounts(kind, magnitude, draws.signs(), height, width, increasing=self.increasing)
        return tuple(Layer(kind[:, i], amount[:, i]) for i in range(self.layers))


@dataclass(frozen=True, kw_only=True)
class AutoAugmentV0(AsPillow):
    """EfficientNet's AutoAugment policy in timm's dialect (`v0`): it moves images by shares of their sides.

    TensorFlow's own moves them by up to 250 pixels and takes the nearest pixels.
    """

    magnitude_std: NonNegative = 0.0  # of magnitudes about the policy's (timm: mstd)
    filter: Filter = "bilinear"  # of what is sheared, moved or turned
    fill: Fill = "mean"  # what they leave bare: black, grey (128) or the mean colour

    def draw(self, keys: Keys, height: int, width: int) -> tuple[Layer, ...]:
        draws, policy = draw(keys, 2), sub_policies.V0
        pair = one_of(draws.op[:, 0], len(policy.kind))
        kind, probability = chosen(jnp.asarray(policy.kind), pair), chosen(jnp.asarray(policy.probability), pair)
        kind = jnp.where(happens(draws.applied, probability), kind, Kind.IDENTITY)
        magnitude = chosen(jnp.asarray(policy.magnitude, jnp.float32), pair)
        magnitude = scattered(draws, magnitude, self.magnitude_std, 10.0)
        amount = amounts(kind, magnitude, draws.signs(), height, width, increasing=False)
        return tuple(Layer(kind[:, i], amount[:, i]) for i in range(2))


def scattered(
    draws: Draws, magnitude: Float32[Array, "b layers"], std: float, most: float
) -> Float32[Array, "b layers"]:
    """Returns magnitudes normally distributed about these, or evenly below them, within 0 … `most`."""
    if std > _EVEN:
        magnitude = draws.level * magnitude
    elif std:
        magnitude = magnitude + std * ndtri(draws.level)
    return jnp.clip(magnitude, 0.0, most)


def amounts(
    kind: Int32[Array, "b layers"],
    magnitude: Float32[Array, "b layers"],
    sign: Float32[Array, "b layers"],
    height: int,
    width: int,
    *,
    increasing: bool,
) -> Float32[Array, "b layers"]:
    """Returns the amounts of these ops at these magnitudes, timm's `LEVEL_TO_ARG`."""
    level = magnitude / 10
    bits, threshold = jnp.floor(level * 4), jnp.minimum(jnp.floor(level * 256), 256)
    factor = jnp.maximum(0.1, 1 + sign * 0.9 * level) if increasing else 0.1 + 1.8 * level
    made = {
        Kind.ROTATE: sign * 30 * level,
        Kind.POSTERIZE: 4 - bits if increasing else bits,
        Kind.SOLARIZE: 256 - threshold if increasing else threshold,
        Kind.SOLARIZE_ADD: jnp.minimum(jnp.floor(level * 110), 128),
        Kind.SHEAR_X: sign * 0.3 * level,
        Kind.SHEAR_Y: sign * 0.3 * level,
        Kind.TRANSLATE_X: sign * _MOVED * level * width,
        Kind.TRANSLATE_Y: sign * _MOVED * level * height,
        **dict.fromkeys(_ENHANCING, factor),
    }
    amount = jnp.zeros_like(level)
    for name, value in made.items():
        amount = jnp.where(kind == name, value, amount)
    return amount
