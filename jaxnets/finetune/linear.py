"""Linear heads on features: logistic regression by L-BFGS, ridge regression in closed form."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from jaxnets.errors import UserError
from jaxnets.models.forward import Activation

_WIDE = 1 << 29  # bytes of features up to which float64 is affordable
_FEW_OPERATIONS = 3e8  # of one product, below which one thread is quicker, or as quick
_ITERATIONS = 2000
_BIAS = 100.0  # the constant feature whose weight is ridge's bias: large, so that it is hardly penalised


class Linear(NamedTuple):
    """logits = features @ kernel + bias."""

    kernel: Float64[np.ndarray, "f classes"]
    bias: Float64[np.ndarray, " classes"]

    def __call__(self, features: Float[np.ndarray, "n f"]) -> Float64[np.ndarray, "n classes"]:
        return features @ self.kernel.astype(features.dtype) + self.bias

    def scaled(self, factor: float) -> "Linear":
        return Linear(self.kernel * factor, self.bias * factor)


class Solution(NamedTuple):
    linear: Linear
    objective: float  # at the minimum


@dataclass(frozen=True)
class Scale:
    """Standardisation of each feature; a head for standardised features becomes one for the features as they are."""

    mean: Float64[np.ndarray, " f"]
    deviation: Float64[np.ndarray, " f"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "n f"], weights: Float64[np.ndarray, " n"] | None = None) -> "Scale":
        mean = np.average(features, 0, weights).astype(np.float64)
        square = np.average(np.square(features - mean.astype(features.dtype)), 0, weights).astype(np.float64)
        return cls(mean, np.sqrt(square) + 1e-5)

    def __call__(self, features: Float[np.ndarray, "n f"]) -> Float[np.ndarray, "n f"]:
        mean, deviation = self.mean.astype(features.dtype), self.deviation.astype(features.dtype)
        return (features - mean) / deviation

    def undo(self, linear: Linear) -> Linear:
        kernel = linear.kernel / self.deviation[:, None]
        return Linear(kernel, linear.bias - self.mean @ kernel)


class Span(NamedTuple):
    """Features in the coordinates of the space that they span, where that has fewer dimensions than they have."""

    features: Float[np.ndarray, "n r"]
    basis: Float64[np.ndarray, "f r"] | None  # orthonormal; None: they are as they were

    @classmethod
    def of(cls, features: Float[np.ndarray, "n f"]) -> "Span":
        """Of fewer examples than features, a penalised head lies in their span, and has there the same norm."""
        n, f = features.shape
        if n >= f:
            return cls(features, None)
        wide = features.astype(np.float64)
        with on_one_thread(n * n * f):
            values, vectors = np.linalg.eigh(wide @ wide.T)
            kept = values > values[-1] * 1e-10
            root = np.sqrt(values[kept])
            return cls(vectors[:, kept] * root, wide.T @ (vectors[:, kept] / root))

    def undo(self, linear: Linear) -> Linear:
        """Returns the head of the features as they were."""
        return linear if self.basis is None else Linear(self.basis @ linear.kernel, linear.bias)


def on_one_thread(operations: float) -> AbstractContextManager[Any]:
    """Keeps small products from several threads, which would wait for one another longer than they compute."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1) if operations < _FEW_OPERATIONS else nullcontext()


def precision_for(features: Float[np.ndarray, "n f"]) -> type[np.float32] | type[np.float64]:
    """Returns float64 where that many features leave room for it."""
    return np.float64 if features.size * 8 <= _WIDE else np.float32


def logistic(
    features: Float[np.ndarray, "n f"],
    targets: Float[np.ndarray, "n classes"],
    l2: float,
    *,
    activation: Activation = "softmax",
    weights: Float64[np.ndarray, " n"] | None = None,
    start: Linear | None = None,
) -> Solution:
    """Minimises Σ wᵢ · loss(xᵢ) / Σ wᵢ + l2 / 2 · ‖kernel‖², whose bias is free, by L-BFGS to convergence.

    With softmax the loss is the cross-entropy, with sigmoid the sum of the classes' binary ones. scikit-learn's
    LogisticRegression minimises the same, times its C · n, for C = 1 / (l2 · n); of two classes it keeps one column,
    which is the difference of the two here, so that its penalty is half of that: C = 2 / (l2 · n).

    Args:
        features: computed with in their own precision.
        targets: distributions over the classes, or 0 … 1 for each label.
        l2: at least 0; with 0 there may be no minimum.
        activation: that belongs to the loss.
        weights: of the examples; None: all count alike.
        start: where to begin.
    """
    from scipy.optimize import minimize

    (n, f), classes = features.shape, targets.shape[1]
    share = np.full(n, 1 / n) if weights is None else weights / weights.sum()
    narrow, goal = share[:, None].astype(features.dtype), targets.astype(features.dtype)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        kernel, bias = flat[: f * classes].reshape(f, classes), flat[f * classes :]
        logits = features @ kernel.astype(features.dtype) + bias.astype(features.dtype)
        losses, probabilities = (_softmax if activation == "softmax" else _sigmoid)(logits, goal)
        error = (probabilities - goal) * narrow
        value = float(share @ losses.astype(np.float64)) + 0.5 * l2 * float(np.vdot(kernel, kernel))
        gradient = (features.T @ error).astype(np.float64) + l2 * kernel
        return value, np.concatenate([gradient.ravel(), error.sum(0, dtype=np.float64)])

    begin = np.zeros((f + 1) * classes) if start is None else np.concatenate([start.kernel.ravel(), start.bias])
    wide = features.dtype == np.float64
    options = {
        "maxiter": _ITERATIONS,
        "maxfun": 2 * _ITERATIONS,
        "maxcor": 20,
        "gtol": 1e-7 if wide else 1e-5,
        "ftol": 1e-12 if wide else 1e-8,
    }
    with on_one_thread(features.size * classes):
        found = minimize(objective, begin, jac=True, method="L-BFGS-B", options=options)
    return Solution(Linear(found.x[: f * classes].reshape(f, classes), found.x[f * classes :]), float(found.fun))


def _softmax(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the cross-entropy of each row and the probabilities."""
    shifted = logits - logits.max(1, keepdims=True)
    powers = np.exp(shifted)
    total = powers.sum(1, keepdims=True)
    return (targets * (np.log(total) - shifted)).sum(1), powers / total


def _sigmoid(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sum of each row's binary cross-entropies and the probabilities."""
    soft = np.logaddexp(0, logits)
    return (soft - targets * logits).sum(1), np.exp(logits - soft)


def losses_of(
    logits: Float[np.ndarray, "n classes"], targets: Float[np.ndarray, "n classes"], activation: Activation
) -> Float[np.ndarray, " n"]:
    """Returns each example's loss, as `logistic` has it."""
    return (_softmax if activation == "softmax" else _sigmoid)(logits, targets)[0]


def ridge(
    features: Float[np.ndarray, "n f"],
    targets: Float[np.ndarray, "n classes"],
    l2: float,
    *,
    weights: Float64[np.ndarray, " n"] | None = None,
) -> Linear:
    """Minimises Σ wᵢ · ‖xᵢ @ kernel + bias − (2 · targetᵢ − 1)‖² + l2 · (‖kernel‖² + ‖bias / 100‖²), in closed form.

    As big_vision's few-shot probe (`evaluators/fewshot_lsr.py`): targets are ±1, and the bias is the weight of a
    constant feature of 100. `weights` have a mean of 1 there.

    Raises:
        UserError: if l2 is 0 and the features leave more than one answer.
    """
    x = np.concatenate([features, np.full((len(features), 1), _BIAS, features.dtype)], 1).astype(np.float64)
    y = 2 * targets.astype(np.float64) - 1
    if weights is not None:
        root = np.sqrt(weights / weights.mean())[:, None]
        x, y = x * root, y * root
    n, f = x.shape
    if l2 == 0:
        found, _, rank, _ = np.linalg.lstsq(x, y)
        if rank < f:
            raise UserError(
                f"ridge regression without regularisation has more than one answer for {n} vectors of {f} features: "
                f"set config.finetune.regularisation above 0, or leave it out"
            )
    elif n < f:  # the same by the matrix that is smaller
        found = x.T @ np.linalg.solve(x @ x.T + l2 * np.eye(n), y)
    else:
        found = np.linalg.solve(x.T @ x + l2 * np.eye(f), x.T @ y)
    return Linear(found[:-1], found[-1] * _BIAS)


def best_scale(
    linear: Linear, features: Float[np.ndarray, "n f"], targets: Float[np.ndarray, "n classes"], activation: Activation
) -> float:
    """Returns the factor of the logits that makes the mean loss least: the inverse of a temperature (Guo et al. 2017).

    Targets are drawn in as Platt (1999, section 2.2) does, as if there were one more image right and one wrong: images
    that are all told apart would ask for logits without end.
    """
    from scipy.optimize import minimize_scalar

    logits, goal = linear(features).astype(np.float64), targets.astype(np.float64)
    even = 1 / goal.shape[1] if activation == "softmax" else 0.5
    goal += (even - goal) * 2 / (len(goal) + 2)
    loss = _softmax if activation == "softmax" else _sigmoid
    found = minimize_scalar(
        lambda power: float(loss(np.exp(power) * logits, goal)[0].mean()), bounds=(-3, 5), method="bounded"
    )
    return float(np.exp(found.x))


Solver = Literal["logistic", "ridge"]
