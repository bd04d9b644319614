"""Lays one thumbnail over another, moved and scaled, and says how well they agree."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8

_COARSE, _COARSE_STEPS = 1.2, 6  # pixels of blur on thumbnails of half the size, and Gauss–Newton steps
_FINE, _FINE_STEPS = 0.8, 5  # likewise at full size
_ROUGHER = 4.0  # times as far from 1 as is asked for, up to which a pair of half the size is looked at in full
_LEAST_LIKENESS = 0.9
_SCALES = (0.5, 2.0)  # of either side, beyond which there is nothing to be compared
_LONGEST_STEP = 0.15  # in the units of a placement
_DAMPING = 1e-3
_LEAST = 0.5  # share of the second image that must be covered
_BLEMISH = 0.05  # share of the pixels, those that agree the least, that a mark or a stamp may have changed
_BATCH = 1024  # pairs at a time


class Agreement(NamedTuple):
    likeness: Float32[np.ndarray, " n"]  # −1 … 1, 1 where both are the same
    kept: Float32[np.ndarray, " n"]  # share of the one that the other keeps: 1 unless one of them is cropped
    support: Float32[np.ndarray, " n"]  # share of the pixels that the edges are spread over: little for a silhouette


def agreement(
    first: UInt8[np.ndarray, "n s s"], second: UInt8[np.ndarray, "n s s"], least: float = _LEAST_LIKENESS
) -> Agreement:
    """Returns how well two images agree where one, moved and scaled, fits the other best.

    Moved and scaled along both sides by Gauss–Newton steps on the squared difference (Lucas and Kanade 1981), with
    brightness and contrast let free. The likeness is the correlation of both gradients, less the few pixels that agree
    the least: images of one scene agree in their edges, others may agree in being bright above and dark below. Pairs
    that half the resolution tells apart are looked at no further; their likeness is rough, and lies below `least`.
    """
    # Half the resolution tells how alike images are to four times what the whole does, roughly.
    worth = 1 - _ROUGHER * (1 - least)
    parts = [_agree(first[i : i + _BATCH], second[i : i + _BATCH], worth) for i in range(0, len(first), _BATCH)]
    if not parts:
        nothing = np.zeros(0, np.float32)
        return Agreement(nothing, nothing, nothing)
    return Agreement(*(np.concatenate(column).astype(np.float32) for column in zip(*parts, strict=True)))


def _agree(first: np.ndarray, second: np.ndarray, worth: float) -> tuple[np.ndarray, ...]:
    a, b = (x.astype(np.float32) for x in (first, second))
    a_half, b_half = (_blurred(_halved(x), _COARSE) for x in (a, b))
    place = _settle(a_half, b_half, np.zeros((len(a), 4), np.float32), _COARSE_STEPS)
    likeness, kept = _judge(a_half, b_half, place)
    still, _ = _judge(a_half, b_half, np.zeros_like(place))
    at, support = np.flatnonzero(np.maximum(likeness, still) >= worth), np.zeros_like(likeness)
    if len(at):
        a, b = _blurred(a[at], _FINE), _blurred(b[at], _FINE)
        likeness[at], kept[at] = _closely(a, b, place[at])
        support[at] = np.minimum(_support(a), _support(b))
    return likeness, kept, support


def _support(images: np.ndarray) -> np.ndarray:
    """Returns (Σ e)² / (n Σ e²) of the squared gradients e: 1 where the edges are everywhere, 1 / n for one pixel."""
    energy = np.square(np.stack(np.gradient(images, axis=(1, 2)), -1)).sum(-1).reshape(len(images), -1)
    return np.square(energy.sum(1)) / (energy.shape[1] * np.square(energy).sum(1) + 1e-9)


def _closely(a: np.ndarray, b: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns likeness and what is kept, the best of laying either image over the other, and of leaving them."""
    scale, shift = 1 + place[:, :2], place[:, 2:]
    inverse = np.concatenate([1 / scale - 1, -shift / scale], 1).astype(np.float32)
    tried = [
        _judge(a, b, _settle(a, b, place, _FINE_STEPS)),
        _judge(b, a, _settle(b, a, inverse, _FINE_STEPS)),
        _judge(a, b, np.zeros_like(place)),
    ]
    likeness, kept = (np.stack(column) for column in zip(*tried, strict=True))
    best = likeness.argmax(0), np.arange(len(a))
    return likeness[best], kept[best]


def _settle(a: np.ndarray, b: np.ndarray, place: np.ndarray, steps: int) -> np.ndarray:
    """Returns where a is read to be most like b: scale down and across, both less 1, and shift down and across.

    Shifts are of a grid that counts −1 … 1 from border to border.
    """
    grid = _grid(a.shape[1])
    y, x = grid[None, :, None], grid[None, None, :]
    for _ in range(steps):
        warped, inside = _warped(a, place)
        # The gradient of the warped image is that of the image itself, times the scale.
        scale = 1 + place[:, :2, None, None]
        down, across = np.gradient(warped, np.float32(2 / a.shape[1]), axis=(1, 2))
        down, across = down / scale[:, 0], across / scale[:, 1]
        columns = [down * y, across * x, down, across, warped, np.ones_like(warped), b - warped]
        jacobian = np.stack([column * inside for column in columns], 1).reshape(len(a), 7, -1)
        product = jacobian @ jacobian.transpose(0, 2, 1)
        normal, right = product[:, :6, :6], product[:, :6, 6:]
        diagonal = np.einsum("nii->ni", normal)
        normal = normal + np.eye(6, dtype=np.float32) * (_DAMPING * diagonal + 1e-3)[:, None]
        change = np.linalg.solve(normal, right)[:, :4, 0]
        place = np.clip(place + np.clip(change, -_LONGEST_STEP, _LONGEST_STEP), -0.6, 1.2)
    return place


def _judge(a: np.ndarray, b: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    warped, inside = _warped(a, place)
    covered = inside.mean((1, 2))
    scale = 1 + place[:, :2]
    fits = (covered >= _LEAST) & ((scale > _SCALES[0]) & (scale < _SCALES[1])).all(1)
    # What b keeps of a where it is a cut of it, or a of b.
    kept = np.minimum(covered, np.minimum(scale, 1).prod(1))
    return np.where(fits, _edges_agree(warped, b, inside), -1), kept


def _edges_agree(a: np.ndarray, b: np.ndarray, inside: Bool[np.ndarray, "n s s"]) -> np.ndarray:
    inner = inside.copy()  # a gradient reads its neighbours
    inner[:, 1:] &= inside[:, :-1]
    inner[:, :-1] &= inside[:, 1:]
    inner[:, :, 1:] &= inside[:, :, :-1]
    inner[:, :, :-1] &= inside[:, :, 1:]
    p, q = (_unit(np.stack(np.gradient(x, axis=(1, 2)), -1) * inner[..., None]) for x in (a, b))
    difference = np.square(p - q).sum(-1).reshape(len(a), -1)
    kept = difference.shape[1] - max(1, int(_BLEMISH * difference.shape[1]))
    limit = np.partition(difference, kept, axis=1)[:, kept, None, None]
    agreeing = (difference.reshape(inside.shape) <= limit)[..., None]
    return (_unit(p * agreeing) * _unit(q * agreeing)).sum((1, 2, 3))


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.square(x).sum((1, 2, 3), keepdims=True) + 1e-9)


def _warped(images: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, Bool[np.ndarray, "n s s"]]:
    """Returns images read at scale · grid + shift, and which of the places lie inside them."""
    side = images.shape[1]
    at = (1 + place[:, :2, None]) * _grid(side) + place[:, 2:, None]  # [n, 2, s]
    within = np.abs(at) <= 1
    pixel = np.clip((at + 1) * (side / 2) - 0.5, 0, side - 1)
    low = np.minimum(pixel.astype(np.int32), side - 2)
    share = (pixel - low).astype(np.float32)
    # Down first, then across: each a gather of whole rows, or along rows.
    n = np.arange(len(images))[:, None]
    rows, weight = low[:, 0], share[:, 0, :, None]
    tall = images[n, rows] * (1 - weight) + images[n, rows + 1] * weight
    columns, weight = low[:, 1, None, :], share[:, 1, None, :]
    wide = np.take_along_axis(tall, columns, 2) * (1 - weight) + np.take_along_axis(tall, columns + 1, 2) * weight
    return wide, within[:, 0, :, None] & within[:, 1, None, :]


def _grid(side: int) -> Float32[np.ndarray, " s"]:
    return ((np.arange(side) + 0.5) * 2 / side - 1).astype(np.float32)


def _halved(images: np.ndarray) -> np.ndarray:
    n, side = images.shape[:2]
    return images.reshape(n, side // 2, 2, side // 2, 2).mean((2, 4))


def _blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    """Returns images under a Gaussian, mirrored at their borders."""
    side, reach = images.shape[1], max(1, round(2.5 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    matrix = np.zeros((side, side), np.float32)
    for row in range(side):
        for offset, weight in zip(range(-reach, reach + 1), kernel / kernel.sum(), strict=True):
            column = row + offset
            column = -column - 1 if column < 0 else 2 * side - 1 - column if column >= side else column
            matrix[row, column] += weight
    return matrix @ images @ matrix.T
