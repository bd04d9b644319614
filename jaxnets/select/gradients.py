"""k-means++ on the gradients of the last layer, which are never written out: BADGE (Ash et al. 2020)."""

import numpy as np
from jaxtyping import Float32, Int64

_SAME = 1e-6  # of two gradients' squares, below which what is left of their difference is rounding


def plus_plus(
    errors: Float32[np.ndarray, "n classes"],
    vectors: Float32[np.ndarray, "n f"],
    count: int,
    random: np.random.Generator,
) -> Int64[np.ndarray, " k"]:
    """Returns images chosen as k-means++ chooses its first centres (Arthur & Vassilvitskii 2007).

    The gradient of the loss by the last layer's weights is error ⊗ vector, of classes · f numbers. The inner product of
    two of them is that of the errors times that of the vectors, so that distances need n · (classes + f) numbers.

    The first has the longest gradient, as in the authors' program; each other is drawn with a probability in proportion
    to the square of its distance from the nearest that is chosen.

    Args:
        errors: gradient of the loss by each logit.
        vectors: that the last layer sees.
        count: how many are chosen, at most n.
        random: that draws.
    """
    squares = np.einsum("nc,nc->n", errors, errors) * np.einsum("nf,nf->n", vectors, vectors)
    chosen = [int(squares.argmax())]
    free = np.ones(len(squares), bool)
    nearest = np.full(len(squares), np.inf)
    while len(chosen) < count:
        last = chosen[-1]
        free[last] = False
        both = squares.astype(np.float64) + squares[last]
        distance = both - 2.0 * (errors @ errors[last]).astype(np.float64) * (vectors @ vectors[last])
        distance[distance < _SAME * both] = 0
        nearest = np.minimum(nearest, distance)
        weight = np.where(free, nearest, 0)
        total = weight.sum()
        weight = weight / total if total > 0 else free / free.sum()  # all that is left is the same as what is chosen
        chosen.append(int(random.choice(len(weight), p=weight)))
    return np.array(chosen[:count], np.int64)
