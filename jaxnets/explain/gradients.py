"""Maps from the gradient of a class's score by the pixels: integrated gradients and SmoothGrad."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array

from jaxnets.explain.cam import Explain
from jaxnets.explain.score import at_once, normalised, scores
from jaxnets.preprocess import Preprocess

STEPS = 32  # between the baseline and the image
_SAMPLES = 32
_NOISE = 0.15  # of an image's own range, where the paper finds 0.1 to 0.2 to be best


def make_integrated_gradients(model: nn.Module, preprocess: Preprocess, *, steps: int = STEPS) -> Explain:
    """Returns a function that gives each pixel's share of the score, summed over its channels, in logits.

    (x − x') · ∫₀¹ ∂s(x' + α (x − x')) / ∂x dα (Sundararajan et al. 2017, equation 1) from a black image x', as theirs;
    by Gauss and Legendre's rule, which needs fewer steps than the paper's sum of equal ones (equation 3). All pixels
    together come to the difference of the scores of x and x' (their proposition 1), as far as so many steps do; what
    is black in the image has no share.
    """
    places, lengths = np.polynomial.legendre.leggauss(steps)

    def explain(variables: Any, images: Array, labels: Array) -> Array:
        x = normalised(model, preprocess, images)
        black = normalised(model, preprocess, jnp.zeros_like(images[:1]))
        way, count = x - black, at_once(len(images), steps)
        alphas, weights = (
            jnp.asarray(numbers.reshape(-1, count), x.dtype) for numbers in ((places + 1) / 2, lengths / 2)
        )

        def add(total: Array, some: tuple[Array, Array]) -> tuple[Array, None]:
            alpha, weight = some
            between = black + alpha[:, None, None, None, None] * way
            gradient = _gradient(model, variables, between, labels)
            return total + jnp.tensordot(weight, gradient, 1, precision=lax.Precision.HIGHEST), None

        total, _ = lax.scan(add, jnp.zeros_like(x), (alphas, weights))
        return (way * total).sum(-1)

    return explain


def make_smoothgrad(
    model: nn.Module, preprocess: Preprocess, *, samples: int = _SAMPLES, noise: float = _NOISE, seed: int = 0
) -> Explain:
    """Returns a function that gives the size of the gradient by each pixel, averaged over noisy images.

    The mean of ∂s(x + n) / ∂x over normal noise n of a deviation of `noise` · (max x − min x) (Smilkov et al. 2017,
    equation in section 3), and of that the sum of absolute values over the channels, as the authors draw it. Every
    image gets the same noise, so that none depends on which others stand beside it.
    """

    def explain(variables: Any, images: Array, labels: Array) -> Array:
        x = normalised(model, preprocess, images)
        deviation = noise * (x.max((1, 2, 3), keepdims=True) - x.min((1, 2, 3), keepdims=True))
        count = at_once(len(images), samples)

        def add(total: Array, numbers: Array) -> tuple[Array, None]:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), numbers)
            drawn = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(keys)
            gradient = _gradient(model, variables, x + deviation * drawn[:, None], labels)
            return total + gradient.sum(0), None

        total, _ = lax.scan(add, jnp.zeros_like(x), jnp.arange(samples, dtype=jnp.int32).reshape(-1, count))
        return jnp.abs(total / samples).sum(-1)

    return explain


def _gradient(model: nn.Module, variables: Any, x: Array, labels: Array) -> Array:
    """Returns the gradient of the scores by normalised images `[n, b, h, w, c]`, n of each label."""
    repeated = jnp.tile(labels, len(x))

    def total(flat: Array) -> Array:
        return scores(model, variables, flat, repeated).sum()

    return jax.grad(total)(x.reshape(-1, *x.shape[2:])).reshape(x.shape)
