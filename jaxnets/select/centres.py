"""Centres that leave nothing far away: the greedy k-centre of Sener & Savarese 2018."""

import numpy as np
from jaxtyping import Float32, Int64

_ROWS = 2048  # centres compared with all images at a time


def k_centre(
    vectors: Float32[np.ndarray, "n f"], centres: Float32[np.ndarray, "m f"], count: int
) -> Int64[np.ndarray, " k"]:
    """Returns the images that become centres, each the farthest from all centres before it (algorithm 1).

    The greatest distance of an image from its centre is at most twice that of the best choice.

    Args:
        vectors: of the images to choose from.
        centres: that are there already; without any, the image nearest to the mean is the first.
        count: how many are chosen, at most n.
    """
    squares = np.einsum("nf,nf->n", vectors, vectors)
    chosen: list[int] = []
    if len(centres):
        nearest = np.full(len(vectors), np.inf, np.float32)
        for start in range(0, len(centres), _ROWS):
            block = centres[start : start + _ROWS]
            for i in range(0, len(vectors), _ROWS):
                rows = slice(i, i + _ROWS)
                product = vectors[rows] @ block.T
                distance = squares[rows, None] - 2 * product + np.einsum("mf,mf->m", block, block)
                nearest[rows] = np.minimum(nearest[rows], distance.min(1))
    else:
        mean = vectors.mean(0)
        chosen.append(int((squares - 2 * (vectors @ mean)).argmin()))
        nearest = _from(vectors, squares, chosen[0])
        nearest[chosen[0]] = -np.inf
    while len(chosen) < count:
        farthest = int(nearest.argmax())
        chosen.append(farthest)
        nearest = np.minimum(nearest, _from(vectors, squares, farthest))
        nearest[farthest] = -np.inf  # is not chosen again, though others be the same
    return np.array(chosen[:count], np.int64)


def _from(
    vectors: Float32[np.ndarray, "n f"], squares: Float32[np.ndarray, " n"], centre: int
) -> Float32[np.ndarray, " n"]:
    """Returns the squared distance of all images from one of them."""
    return squares + squares[centre] - 2 * (vectors @ vectors[centre])
