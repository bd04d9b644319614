"""The head on features: fitted for each regularisation of a path, and the one taken that is best on validation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from jaxnets.finetune.linear import Linear, Scale, Solver, best_scale, logistic, precision_for, ridge
from jaxnets.metrics import table
from jaxnets.metrics.metric import Outcome, figures_of, sums_of
from jaxnets.models.forward import Activation
from jaxnets.recipe.losses.loss import Loss, soft_target

# From strong to weak, each from the last one's solution; of standardised features.
PATHS: Mapping[Solver, tuple[float, ...]] = {
    "logistic": tuple(10.0**power for power in (1.5, 1, 0.5, 0, -0.5, -1, -1.5, -2, -2.5, -3, -3.5, -4)),
    "ridge": tuple(2.0**power for power in range(20, 1, -2)),  # big_vision's is 2¹⁰
}
_PATIENCE = 4  # values without a better one, after which weaker ones are not tried
FEW = 5  # images of a class up to which ridge is the default
_PADDED = 256  # examples, to a multiple of which the judge's arrays are padded, so that its programs are few

Figures = dict[str, Any]


class Data(NamedTuple):
    """Features that a head learns from, or is judged on."""

    features: Float[np.ndarray, "n f"]
    labels: Int[np.ndarray, " n"] | Float32[np.ndarray, "n classes"]
    weights: Float64[np.ndarray, " n"] | None = None


class Judge:
    """Measures logits as an evaluation does, loss included."""

    def __init__(self, loss: Loss, classes: int) -> None:
        self._classes = classes

        def sums(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> Any:
            losses = loss(logits, soft_target(labels, classes))
            return sums_of(table.EVALUATION, Outcome(logits, labels, mask, losses))

        self._sums = jax.jit(sums)

    def __call__(self, logits: Float[np.ndarray, "n classes"], labels: np.ndarray) -> Figures:
        n = len(logits)
        padding = -n % _PADDED
        logits = np.pad(np.asarray(logits, np.float32), ((0, padding), (0, 0)))
        kind = np.int32 if labels.ndim == 1 else np.float32
        labels = np.pad(np.asarray(labels, kind), ((0, padding), *[(0, 0)] * (labels.ndim - 1)))
        total = self._sums(jnp.asarray(logits), jnp.asarray(labels), jnp.arange(len(logits)) < n)
        return figures_of(table.EVALUATION, {name: np.asarray(value) for name, value in total.items()})


@dataclass(frozen=True, kw_only=True)
class Fitted:
    linear: Linear  # of the features as they are
    solver: Solver
    regularisation: float
    figures: Figures | None  # on validation, where there is any
    tried: Mapping[float, Figures]


def targets_of(labels: np.ndarray, classes: int) -> Float32[np.ndarray, "n classes"]:
    return np.eye(classes, dtype=np.float32)[labels] if labels.ndim == 1 else labels.astype(np.float32)


def fit_head(
    train: Data,
    validation: Data | None,
    *,
    classes: int,
    activation: Activation,
    judge: Judge,
    is_better: Callable[[Figures, Figures | None], bool],
    solver: Solver = "logistic",
    path: Sequence[float] | None = None,
    stopping: Callable[[], None] = lambda: None,
) -> Fitted:
    """Returns the head that is best on validation, of one for each regularisation in `path`.

    Where there is a choice, and with ridge, its logits are scaled to what the images bear out (`linear.best_scale`).
    Without validation there is no choice: the path's middle is taken. `stopping` is called before each and may raise.
    """
    kind = precision_for(train.features)
    scale = Scale.of(train.features, train.weights)
    x, targets = scale(train.features.astype(kind)), targets_of(train.labels, classes)
    values = PATHS[solver] if path is None else tuple(path)
    if validation is None and len(values) > 1:
        values = values[len(values) // 2 :][:1]
    seen = validation or train  # what decides how sure the head is
    judged = (seen.features, targets_of(seen.labels, classes))
    tried: dict[float, Figures] = {}
    best: tuple[float, Linear, Figures | None] | None = None
    last: Linear | None = None
    since = 0
    for value in values:
        stopping()
        if solver == "logistic":
            solution = logistic(x, targets, value, activation=activation, weights=train.weights, start=last)
            last = solution.linear
            linear = scale.undo(solution.linear)
        else:
            linear = scale.undo(ridge(x, targets, value, weights=train.weights))
        if solver == "ridge" or len(values) > 1:
            linear = linear.scaled(best_scale(linear, *judged, activation))
        figures = None
        if validation is not None:
            figures = tried[value] = judge(linear(validation.features), validation.labels)
            since += 1
        if best is None or (figures is not None and is_better(figures, best[2])):
            best, since = (value, linear, figures), 0
        if since >= _PATIENCE:
            break
    assert best is not None
    return Fitted(linear=best[1], solver=solver, regularisation=best[0], figures=best[2], tried=tried)


def default_solver(labels: np.ndarray) -> Solver:
    """Returns ridge for few images of a class, logistic for more."""
    counts = np.bincount(labels) if labels.ndim == 1 else labels.sum(0)
    present = counts[counts > 0]
    return "ridge" if len(present) and np.median(present) <= FEW else "logistic"
