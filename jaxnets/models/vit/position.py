"""Position embeddings: learned for one grid of patches, and interpolated to any other."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.typing import Dtype
from jax import lax
from jaxtyping import Array, Float

from jaxnets.models.sized import Sized

Grid = tuple[int, int]  # rows and columns of patches

_CUBIC = -0.5  # of Keys' kernel, as where Pillow and PyTorch smooth (antialias=True)


class Position(Sized):
    """Gives what is added to each token for its place; the parameter is `embedding` `[1, n, c]`.

    It holds the class token's first, where it has one, then those of the patches, row by row (Dosovitskiy et al. 2021,
    equation 1). For another grid than its own those of the patches are interpolated, with timm's
    `resample_abs_pos_embed`'s numbers: bicubic, smoothed where the grid is smaller.
    """

    features: int
    grid: Grid  # that the parameter is for
    of_token: bool  # whether the class token has one
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, grid: Grid) -> tuple[Float[Array, "1 t c"], Float[Array, "1 h w c"]]:
        """Returns those of the class token (t is 1 or 0) and of the patches of a grid."""
        rows, columns = self.grid
        first = int(self.of_token)
        init = nn.initializers.normal(0.02)  # as in Dosovitskiy et al.'s code
        embedding = self.param("embedding", init, (1, first + rows * columns, self.features), self.param_dtype)
        patches = jnp.reshape(embedding[:, first:], (1, rows, columns, self.features))
        return embedding[:, :first], resample(patches, grid)

    def sized(self, grid: Grid) -> tuple[int, int, Any]:
        first, c = int(self.of_token), self.features
        zeros = jnp.zeros((1, first, c)), jnp.zeros((1, *grid, c))
        return (first + self.grid[0] * self.grid[1]) * c, 0, zeros  # interpolated once for all images


def resample(patches: Float[Array, "1 h w c"], grid: Grid) -> Float[Array, "1 h2 w2 c"]:
    """Returns position embeddings for another grid."""
    own = (patches.shape[1], patches.shape[2])
    if own == grid:
        return patches
    rows, columns = (
        jnp.asarray(resampling_matrix(old, new), patches.dtype) for old, new in zip(own, grid, strict=True)
    )
    return jnp.einsum("ri,cj,nijf->nrcf", rows, columns, patches, precision=lax.Precision.HIGHEST)


def resampling_matrix(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """Returns the weights of bicubic interpolation along one side; each row adds up to 1.

    Pixels are areas: the middle of the new one i lies at (i + ½) · old / new. The kernel (Keys 1981, equation 4) is
    stretched where there are fewer new ones than old ones, and what reaches over the edge is left out.
    """
    scale = old / new
    stretch = max(scale, 1.0)
    middle = (np.arange(new) + 0.5) * scale - 0.5
    x = np.abs(middle[:, None] - np.arange(old)) / stretch
    a = _CUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    weights = np.where(x <= 1, near, np.where(x < 2, far, 0.0))
    return weights / weights.sum(1, keepdims=True)
