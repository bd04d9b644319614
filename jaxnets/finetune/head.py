"""The head on features: fitted for each regularisation of a path, and the one taken that is best on validation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from jaxnets.finetune.linear import Linear, Scale, Solver, Span, best_scale, logistic, losses_of, precision_for, ridge
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
        return figures_of(table.EVALUATION, self.sums(logits, labels))

    def sums(self, logits: Float[np.ndarray, "n classes"], labels: np.ndarray) -> dict[str, np.ndarray]:
        """Returns what the figures follow from."""
        n = len(logits)
        padding = -n % _PADDED
        logits = np.pad(np.asarray(logits, np.float32), ((0, padding), (0, 0)))
        kind = np.int32 if labels.ndim == 1 else np.float32
        labels = np.pad(np.asarray(labels, kind), ((0, padding), *[(0, 0)] * (labels.ndim - 1)))
        total = self._sums(jnp.asarray(logits), jnp.asarray(labels), jnp.arange(len(logits)) < n)
        return {name: np.asarray(value) for name, value in total.items()}


@dataclass(frozen=True, kw_only=True)
class Fitted:
    linear: Linear  # of the features as they are
    factor: float  # that its logits were scaled by
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
    figure: str | None = None,
    shift: Float64[np.ndarray, " classes"] | None = None,
    solver: Solver = "logistic",
    path: Sequence[float] | None = None,
    stopping: Callable[[], None] = lambda: None,
) -> Fitted:
    """Returns the head that is best on validation, of one for each regularisation in `path`, strongest first.

    Between equals in the figure that chooses checkpoints it is the one with the least loss; or rather the strongest of
    those whose loss is no more than its standard error above that (Breiman et al. 1984, section 3.4.3), since a few
    images can't tell them apart. Where there is a choice, and with ridge, logits are scaled to what the images bear out
    (`linear.best_scale`). Without validation there is no choice: the path's middle is taken.

    Args:
        train: what is learned from.
        validation: what decides.
        classes: how many.
        activation: that makes the logits probabilities.
        judge: measures heads.
        figure: that decides, as config.best.
        shift: that is added to the logits in training alone (`recipe.losses.imbalance.logit_adjustment`).
        solver: which.
        path: regularisations of standardised features; None: the solver's own.
        stopping: called before each of them, and may raise.
    """
    kind = precision_for(train.features)
    scale = Scale.of(train.features, train.weights)
    span = Span.of(scale(train.features.astype(kind)))
    x, targets = span.features, targets_of(train.labels, classes)
    values = PATHS[solver] if path is None else tuple(path)
    if validation is None and len(values) > 1:
        values = values[len(values) // 2 :][:1]
    seen = validation or train  # what decides how sure the head is
    seen_targets = targets_of(seen.labels, classes)
    candidates: list[_Candidate] = []
    last: Linear | None = None
    for value in values:
        stopping()
        if solver == "logistic":
            last = logistic(x, targets, value, activation=activation, weights=train.weights, start=last).linear
            linear = scale.undo(span.undo(last))
        else:
            linear = scale.undo(span.undo(ridge(x, targets, value, weights=train.weights)))
        if shift is not None:  # the bias is free, and takes it up whole
            linear = Linear(linear.kernel, linear.bias - shift)
        scaled = solver == "ridge" or len(values) > 1
        factor = best_scale(linear, seen.features, seen_targets, activation) if scaled else 1.0
        linear = linear.scaled(factor)
        losses = losses_of(linear(seen.features), seen_targets, activation)
        figures = None if validation is None else judge(linear(validation.features), validation.labels)
        error = float(losses.std() / np.sqrt(len(losses)))
        reached = (0.0, 0.0) if figures is None else table.score(figures, figure)
        candidates.append(_Candidate(value, linear, factor, figures, reached, error))
        best = max(range(len(candidates)), key=lambda i: candidates[i].score)
        if len(candidates) - best > _PATIENCE:
            break
    chosen = _strongest_of_the_best(candidates)
    return Fitted(
        linear=chosen.linear,
        factor=chosen.factor,
        solver=solver,
        regularisation=chosen.value,
        figures=chosen.figures,
        tried={candidate.value: candidate.figures or {} for candidate in candidates},
    )


class _Candidate(NamedTuple):
    value: float
    linear: Linear
    factor: float
    figures: Figures | None
    score: tuple[float, float]
    error: float  # standard error of the mean loss


def _strongest_of_the_best(candidates: Sequence[_Candidate]) -> _Candidate:
    best = max(candidates, key=lambda candidate: candidate.score)
    (figure, loss), error = best.score, best.error
    return next(c for c in candidates if c.score[0] == figure and c.score[1] >= loss - error)


def choose_by_folds(
    data: Callable[[np.ndarray], Data],
    held_out: Callable[[np.ndarray], Data],
    folds: Int[np.ndarray, " n"],
    *,
    classes: int,
    activation: Activation,
    solver: Solver,
) -> tuple[float, float]:
    """Returns the regularisation of least loss in cross-validation, and the factor that its logits want.

    Each image is judged by the head of a fold that has not seen it, so that all of them decide.

    Args:
        data: of some of the images, to learn from.
        held_out: likewise, to judge on.
        folds: of each image.
        classes: and the others as for `fit_head`.
    """
    everything = held_out(np.arange(len(folds)))
    targets = targets_of(everything.labels, classes)
    logits = np.zeros((len(PATHS[solver]), len(folds), classes))
    for fold in np.unique(folds):
        train, apart = data(np.flatnonzero(folds != fold)), np.flatnonzero(folds == fold)
        scale = Scale.of(train.features, train.weights)
        span = Span.of(scale(train.features.astype(np.float64)))
        last: Linear | None = None
        for i, value in enumerate(PATHS[solver]):
            goal = targets_of(train.labels, classes)
            if solver == "logistic":
                last = logistic(
                    span.features, goal, value, activation=activation, weights=train.weights, start=last
                ).linear
            else:
                last = ridge(span.features, goal, value, weights=train.weights)
            logits[i, apart] = scale.undo(span.undo(last))(everything.features[apart])
    identity = Linear(np.eye(classes), np.zeros(classes))
    found: list[tuple[float, float, float]] = []  # loss, value, factor
    for value, out_of_fold in zip(PATHS[solver], logits, strict=True):
        factor = best_scale(identity, out_of_fold, targets, activation)
        found.append((float(losses_of(factor * out_of_fold, targets, activation).mean()), value, factor))
    _, value, factor = min(found)
    return value, factor


def default_solver(labels: np.ndarray) -> Solver:
    """Returns ridge for few images of a class, logistic for more."""
    counts = np.bincount(labels) if labels.ndim == 1 else labels.sum(0)
    present = counts[counts > 0]
    return "ridge" if len(present) and np.median(present) <= FEW else "logistic"
