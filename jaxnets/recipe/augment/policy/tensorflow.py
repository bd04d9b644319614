"""RandAugment as TensorFlow's EfficientNets have it (google/automl, `efficientnetv2/autoaugment.py`)."""

from dataclasses import dataclass
from typing import Annotated

import jax.numpy as jnp
import numpy as np

from jaxnets.recipe.augment.op import Keys
from jaxnets.recipe.augment.policy.dialect import Dialect, Fill, Filter
from jaxnets.recipe.augment.policy.draws import chosen, draw, one_of
from jaxnets.recipe.augment.policy.layer import Kind, Layer
from jaxnets.schema import Natural, Range

OPS = (
    Kind.AUTOCONTRAST, Kind.EQUALIZE, Kind.INVERT, Kind.ROTATE, Kind.POSTERIZE, Kind.SOLARIZE, Kind.COLOR,
    Kind.CONTRAST, Kind.BRIGHTNESS, Kind.SHARPNESS, Kind.SHEAR_X, Kind.SHEAR_Y, Kind.TRANSLATE_X, Kind.TRANSLATE_Y,
    Kind.CUTOUT, Kind.SOLARIZE_ADD,
)  # fmt: skip
_SIGNED = (Kind.ROTATE, Kind.SHEAR_X, Kind.SHEAR_Y, Kind.TRANSLATE_X, Kind.TRANSLATE_Y)


@dataclass(frozen=True, kw_only=True)
class TensorflowRandAugment:
    """RandAugment (Cubuk et al. 2020, arXiv 1909.13719) in TensorFlow's dialect, where every op is applied.

    Its contrast blends with height · width / 256, at most 255, where others take the image's mean grey. What it rounds
    down (the smoothed image of sharpness, the greys of colour) is rounded as Pillow does here: a level apart at most.
    """

    layers: Annotated[int, Range(1, 8)] = 2  # ops drawn for each image, one after the other
    magnitude: Annotated[float, Range(0, 30)] = 9.0  # of all ops; 10 is no end: 28 turns images by 84°
    cutout: Natural = 40  # pixels at magnitude 10, half the side of the square that is filled
    translation: Natural = 100  # pixels at magnitude 10
    filter: Filter = "nearest"  # of what is sheared, moved or turned
    fill: Fill = "grey"  # what they leave bare: black, grey (128) or the mean colour

    @property
    def dialect(self) -> Dialect:
        return Dialect(filter=self.filter, fill=self.fill, corner=0.0, contrast_from_area=True)

    def draw(self, keys: Keys, height: int, width: int) -> tuple[Layer, ...]:
        draws, amount = draw(keys, self.layers), self.amounts()
        number = one_of(draws.op, len(OPS))
        kind = chosen(jnp.asarray(OPS, jnp.int32), number)
        fixed = chosen(jnp.asarray([amount.get(op, 0.0) for op in OPS], jnp.float32), number)
        signed = chosen(jnp.asarray(np.isin(OPS, _SIGNED)), number)
        fixed = jnp.where(signed, draws.signs() * fixed, fixed)
        centre = jnp.stack([draws.row, draws.column], -1)
        return tuple(Layer(kind[:, i], fixed[:, i], centre[:, i]) for i in range(self.layers))

    def amounts(self) -> dict[Kind, float]:
        """Returns the amount of each op that has one, before its sign."""
        level = self.magnitude / 10
        return {
            Kind.ROTATE: 30 * level,
            # No bits are one bit: TensorFlow shifts a byte by 7 at most. More than 8 are all.
            Kind.POSTERIZE: max(1, int(4 * level)),
            Kind.SOLARIZE: int(256 * level),
            Kind.SOLARIZE_ADD: int(110 * level),
            **dict.fromkeys((Kind.COLOR, Kind.CONTRAST, Kind.BRIGHTNESS, Kind.SHARPNESS), 0.1 + 1.8 * level),
            Kind.SHEAR_X: 0.3 * level,
            Kind.SHEAR_Y: 0.3 * level,
            Kind.TRANSLATE_X: self.translation * level,
            Kind.TRANSLATE_Y: self.translation * level,
            Kind.CUTOUT: int(self.cutout * level),
        }
