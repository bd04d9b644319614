"""AutoAugment's policies as they were published: 25 pairs of ops, of which one is drawn for each image.

Cubuk et al. 2019, arXiv 1805.09501, appendix; v0 stands in no paper, but in EfficientNet's code.
"""

from typing import NamedTuple

import numpy as np

from jaxnets.recipe.augment.policy.layer import Kind

AUTO, COLOR, EQUAL, INVERT = Kind.AUTOCONTRAST, Kind.COLOR, Kind.EQUALIZE, Kind.INVERT
POST, ROTATE, SOLAR, ADD = Kind.POSTERIZE, Kind.ROTATE, Kind.SOLARIZE, Kind.SOLARIZE_ADD
BRIGHT, CONTRAST, SHARP = Kind.BRIGHTNESS, Kind.CONTRAST, Kind.SHARPNESS
SHEAR_X, SHEAR_Y, MOVE_X, MOVE_Y = Kind.SHEAR_X, Kind.SHEAR_Y, Kind.TRANSLATE_X, Kind.TRANSLATE_Y


class SubPolicies(NamedTuple):
    """Of each pair's first and second op."""

    kind: np.ndarray  # [pairs, 2], of `Kind`
    probability: np.ndarray  # [pairs, 2]
    magnitude: np.ndarray  # [pairs, 2], whole numbers from 0


_Op = tuple[Kind, float, int]


def _columns(*pairs: tuple[_Op, _Op]) -> SubPolicies:
    kind, probability, magnitude = np.moveaxis(np.array(pairs, np.float32), -1, 0)
    return SubPolicies(kind.astype(np.int32), probability, magnitude.astype(np.int32))


V0 = _columns(
    ((EQUAL, 0.8, 1), (SHEAR_Y, 0.8, 4)),
    ((COLOR, 0.4, 9), (EQUAL, 0.6, 3)),
    ((COLOR, 0.4, 1), (ROTATE, 0.6, 8)),
    ((SOLAR, 0.8, 3), (EQUAL, 0.4, 7)),
    ((SOLAR, 0.4, 2), (SOLAR, 0.6, 2)),
    ((COLOR, 0.2, 0), (EQUAL, 0.8, 8)),
    ((EQUAL, 0.4, 8), (ADD, 0.8, 3)),
    ((SHEAR_X, 0.2, 9), (ROTATE, 0.6, 8)),
    ((COLOR, 0.6, 1), (EQUAL, 1.0, 2)),
    ((INVERT, 0.4, 9), (ROTATE, 0.6, 0)),
    ((EQUAL, 1.0, 9), (SHEAR_Y, 0.6, 3)),
    ((COLOR, 0.4, 7), (EQUAL, 0.6, 0)),
    ((POST, 0.4, 6), (AUTO, 0.4, 7)),
    ((SOLAR, 0.6, 8), (COLOR, 0.6, 9)),
    ((SOLAR, 0.2, 4), (ROTATE, 0.8, 9)),
    ((ROTATE, 1.0, 7), (MOVE_Y, 0.8, 9)),
    ((SHEAR_X, 0.0, 0), (SOLAR, 0.8, 4)),
    ((SHEAR_Y, 0.8, 0), (COLOR, 0.6, 4)),
    ((COLOR, 1.0, 0), (ROTATE, 0.6, 2)),
    ((EQUAL, 0.8, 4), (EQUAL, 0.0, 8)),
    ((EQUAL, 1.0, 4), (AUTO, 0.6, 2)),
    ((SHEAR_Y, 0.4, 7), (ADD, 0.6, 7)),
    ((POST, 0.8, 2), (SOLAR, 0.6, 10)),
    ((SOLAR, 0.6, 8), (EQUAL, 0.6, 1)),
    ((COLOR, 0.8, 6), (ROTATE, 0.4, 5)),
)

IMAGENET = _columns(
    ((POST, 0.4, 8), (ROTATE, 0.6, 9)),
    ((SOLAR, 0.6, 5), (AUTO, 0.6, 5)),
    ((EQUAL, 0.8, 8), (EQUAL, 0.6, 3)),
    ((POST, 0.6, 7), (POST, 0.6, 6)),
    ((EQUAL, 0.4, 7), (SOLAR, 0.2, 4)),
    ((EQUAL, 0.4, 4), (ROTATE, 0.8, 8)),
    ((SOLAR, 0.6, 3), (EQUAL, 0.6, 7)),
    ((POST, 0.8, 5), (EQUAL, 1.0, 2)),
    ((ROTATE, 0.2, 3), (SOLAR, 0.6, 8)),
    ((EQUAL, 0.6, 8), (POST, 0.4, 6)),
    ((ROTATE, 0.8, 8), (COLOR, 0.4, 0)),
    ((ROTATE, 0.4, 9), (EQUAL, 0.6, 2)),
    ((EQUAL, 0.0, 7), (EQUAL, 0.8, 8)),
    ((INVERT, 0.6, 4), (EQUAL, 1.0, 8)),
    ((COLOR, 0.6, 4), (CONTRAST, 1.0, 8)),
    ((ROTATE, 0.8, 8), (COLOR, 1.0, 2)),
    ((COLOR, 0.8, 8), (SOLAR, 0.8, 7)),
    ((SHARP, 0.4, 7), (INVERT, 0.6, 8)),
    ((SHEAR_X, 0.6, 5), (EQUAL, 1.0, 9)),
    ((COLOR, 0.4, 0), (EQUAL, 0.6, 3)),
    ((EQUAL, 0.4, 7), (SOLAR, 0.2, 4)),
    ((SOLAR, 0.6, 5), (AUTO, 0.6, 5)),
    ((INVERT, 0.6, 4), (EQUAL, 1.0, 8)),
    ((COLOR, 0.6, 4), (CONTRAST, 1.0, 8)),
    ((EQUAL, 0.8, 8), (EQUAL, 0.6, 3)),
)

CIFAR10 = _columns(
    ((INVERT, 0.1, 0), (CONTRAST, 0.2, 6)),
    ((ROTATE, 0.7, 2), (MOVE_X, 0.3, 9)),
    ((SHARP, 0.8, 1), (SHARP, 0.9, 3)),
    ((SHEAR_Y, 0.5, 8), (MOVE_Y, 0.7, 9)),
    ((AUTO, 0.5, 0), (EQUAL, 0.9, 0)),
    ((SHEAR_Y, 0.2, 7), (POST, 0.3, 7)),
    ((COLOR, 0.4, 3), (BRIGHT, 0.6, 7)),
    ((SHARP, 0.3, 9), (BRIGHT, 0.7, 9)),
    ((EQUAL, 0.6, 0), (EQUAL, 0.5, 0)),
    ((CONTRAST, 0.6, 7), (SHARP, 0.6, 5)),
    ((COLOR, 0.7, 7), (MOVE_X, 0.5, 8)),
    ((EQUAL, 0.3, 0), (AUTO, 0.4, 0)),
    ((MOVE_Y, 0.4, 3), (SHARP, 0.2, 6)),
    ((BRIGHT, 0.9, 6), (COLOR, 0.2, 8)),
    ((SOLAR, 0.5, 2), (INVERT, 0.0, 0)),
    ((EQUAL, 0.2, 0), (AUTO, 0.6, 0)),
    ((EQUAL, 0.2, 0), (EQUAL, 0.6, 0)),
    ((COLOR, 0.9, 9), (EQUAL, 0.6, 0)),
    ((AUTO, 0.8, 0), (SOLAR, 0.2, 8)),
    ((BRIGHT, 0.1, 3), (COLOR, 0.7, 0)),
    ((SOLAR, 0.4, 5), (AUTO, 0.9, 0)),
    ((MOVE_Y, 0.9, 9), (MOVE_Y, 0.7, 9)),
    ((AUTO, 0.9, 0), (SOLAR, 0.8, 3)),
    ((EQUAL, 0.8, 0), (INVERT, 0.1, 0)),
    ((MOVE_Y, 0.7, 9), (AUTO, 0.9, 0)),
)
