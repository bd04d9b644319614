"""Muon: momentum whose matrices are made nearly orthogonal."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from jaxnets.models.family import Structure
from jaxnets.recipe.optimizer.course import Course
from jaxnets.recipe.optimizer.decay import Decay
from jaxnets.schema import Count, Positive, ZeroToBelowOne

_QUINTIC = (3.4445, -4.7750, 2.0315)  # of both forms' Newton-Schulz iteration
_TINY = 1e-7  # added to a matrix's norm


@dataclass(frozen=True, kw_only=True)
class Muon:
    """Muon (Jordan et al. 2024) for kernels as matrices [k·k·in, out]; what else there is has another optimizer.

    airbench: the form of cifar10-airbench: v ← μ·v + g, of g + μ·v the orthogonal part by 3 iterations, and at each
    step w is scaled to the norm √out, in place of decay. keller_jordan: the form of the Muon repository: v ← μ·v +
    (1 − μ)·g, 5 iterations, √max(1, rows / columns) of the last two axes in torch's order (for a kernel of a
    convolution its height and width, so 1), and decoupled decay.

    The fallback has the kernels of the stem and the head, depthwise kernels, scales and biases.
    """

    form: Literal["airbench", "keller_jordan"] = "keller_jordan"
    momentum: ZeroToBelowOne | None = None  # μ; None: airbench 0.6, keller_jordan 0.95
    nesterov: bool = True  # the step looks ahead by one momentum
    iterations: Count | None = None  # of Newton and Schulz; None: airbench 3, keller_jordan 5
    # In which they are computed: both forms' own is bfloat16; float32 multiplies as config.matmul_precision says.
    dtype: Literal["float32", "bfloat16"] = "float32"
    fallback: Literal["sgd", "adamw"] = "adamw"  # for what is no such matrix, with the keys of that optimizer
    fallback_rate: Positive = 1.0  # what its rate is multiplied by

    def matrices(self, course: Course, decay: Decay) -> optax.GradientTransformation:
        """Returns the optimizer of the matrices."""
        own = [self._momentum(), self._orthogonal()]
        if self.form == "airbench":
            return optax.chain(*own, course.by_rate(), *course.layer_rates(), _to_norm())
        return optax.chain(*own, decay.along(course), course.by_rate(), *course.layer_rates())

    def _momentum(self) -> optax.GradientTransformation:
        airbench = self.form == "airbench"
        momentum = (0.6 if airbench else 0.95) if self.momentum is None else self.momentum
        if airbench:
            return optax.trace(momentum, self.nesterov)
        # The direction of lerp(g, v, μ) with v ← lerp(v, g, 1 − μ), which is that of the trace but for a factor.
        return optax.chain(optax.trace(momentum, self.nesterov), optax.scale(1 - momentum))

    def _orthogonal(self) -> optax.GradientTransformation:
        airbench = self.form == "airbench"
        iterations = self.iterations or (3 if airbench else 5)

        def orthogonal(update: Array) -> Array:
            dtype = jnp.bfloat16 if self.dtype == "bfloat16" else update.dtype  # of the parameters, float32 or wider
            matrix = update.reshape(-1, update.shape[-1]).astype(dtype)
            factor = 1.0 if airbench else _rows_by_columns(update.shape)
            return factor * newton_schulz(matrix, iterations).astype(update.dtype).reshape(update.shape)

        return optax.stateless(lambda updates, _: jax.tree.map(orthogonal, updates))


def newton_schulz(matrix: Float[Array, "m n"], iterations: int) -> Float[Array, "m n"]:
    """Returns a matrix of the same singular vectors, whose singular values are near 1 (about 0.7 to 1.2).

    It is the quintic iteration X ← a·X + (b·A + c·A²)·X with A = X·Xᵀ from X = matrix / ‖matrix‖, in the matrix's type.
    """
    a, b, c = _QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix / (jnp.linalg.norm(matrix) + _TINY)
    x = x.T if tall else x
    for _ in range(iterations):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


def muon_split(params: Any, structure: Structure | None) -> dict[str, Any]:
    """Returns the parameters that are "matrices" and the "rest", as far as there are any."""
    ends = (*structure.stem, structure.head) if structure else ()
    flat = flatten_dict(params)

    def is_matrix(path: tuple[str, ...], x: Any) -> bool:
        depthwise = x.ndim == 4 and x.shape[2] == 1
        return path[-1] == "kernel" and x.ndim >= 2 and path[0] not in ends and not depthwise

    matrices = {path: x for path, x in flat.items() if is_matrix(path, x)}
    rest = {path: x for path, x in flat.items() if path not in matrices}
    return {name: unflatten_dict(tree) for name, tree in (("matrices", matrices), ("rest", rest)) if tree}


def _rows_by_columns(shape: tuple[int, ...]) -> float:
    """Returns √max(1, rows / columns) of what is [out, in, h, w] or [out, in] in torch, and [h, w, in, out] here."""
    rows, columns = shape[:2] if len(shape) == 4 else (shape[-1], shape[-2])
    return max(1.0, rows / columns) ** 0.5


def _to_norm() -> optax.GradientTransformation:
    """Returns what scales each parameter to the norm √out before the update is added."""

    def with_scaling(update: Array, w: Array) -> Array:
        norm = jnp.linalg.norm(w.ravel())
        factor = w.shape[-1] ** 0.5 / jnp.where(norm > 0, norm, 1.0)
        return update + w * (factor - 1)  # zeros stay zeros

    return optax.stateless(lambda updates, params: jax.tree.map(with_scaling, updates, params))
