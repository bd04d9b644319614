"""How good a head on features is, by cross-validation: the mean and the spread over folds, without making a run."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxnets.cache import cache_directory
from jaxnets.config import Config
from jaxnets.data.dataset import open_dataset
from jaxnets.data.examples import Examples
from jaxnets.data.sources import Source, open_undivided
from jaxnets.data.split import fold_of
from jaxnets.engine.backbone import Backbone
from jaxnets.errors import UserError
from jaxnets.finetune.decide import with_defaults
from jaxnets.finetune.features import features_of
from jaxnets.finetune.head import Data, Figures, Judge, choose_by_folds, default_solver, fit_head
from jaxnets.models.forward import Activation
from jaxnets.models.registry import create_model
from jaxnets.pretrained.convert import adapt
from jaxnets.recipe.losses.table import find_loss
from jaxnets.train.build import model_fields
from jaxnets.train.display import Display
from jaxnets.train.start import open_start

_INNER = 5  # folds of the images that are not held out, by which the regularisation is chosen


@dataclass(frozen=True, kw_only=True)
class Fold:
    seed: int
    number: int
    regularisation: float
    figures: Figures


@dataclass(frozen=True, kw_only=True)
class Folds:
    folds: tuple[Fold, ...]
    names: tuple[str, ...]  # of the images
    fold_of: dict[int, tuple[int, ...]]  # by seed: the fold of each image
    seconds: float

    def summary(self, figure: str = "accuracy") -> tuple[float, float]:
        """Returns the mean of a figure over folds and seeds, and its standard deviation."""
        values = [fold.figures[figure] for fold in self.folds]
        return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def cross_validate(
    config: Config, *, folds: int = 5, seeds: Sequence[int] = (0,), display: Display | None = None
) -> Folds:
    """Fits and measures a head for each fold, on features that are computed once for all of them.

    All images with a label are divided, but for a test split that the source has itself, which is left alone. In each
    fold the regularisation is chosen by another cross-validation within the images that are not held out, unless the
    config gives it; then the head learns from all of those, and is measured on those that are.

    Args:
        config: of a fine-tune; data.validation, data.folds and what is of the training after the head are not read.
        folds: 2 or more.
        seeds: of the division, which is drawn anew for each.
        display: shows how far it has come.

    Raises:
        UserError: for data or weights that cannot be used.
    """
    began, display = time.monotonic(), display or Display(quiet=True)
    source = open_undivided(config.data)
    train = source.splits["train"]
    if folds < 2 or folds > len(train):
        raise UserError(f"the folds must be 2 … {len(train)}, the images of {source.description}, found {folds}")
    config, _ = with_defaults(config, source)
    found = open_start(config)
    assert found is not None
    classes = len(source.class_names)
    whole = replace(config, data=replace(config.data, validation=0.0, folds=None, shots=None))
    data = open_dataset(whole, None, found.preprocess, _with_test(source))
    model = create_model(
        config.model.name, preprocess=data.preprocess, **{**found.fields, **model_fields(config, classes)}
    )
    variables = adapt(found.variables, model, data.preprocess.channels, config.seed)
    backbone = Backbone(config.model.name, model, variables, data.preprocess, config.matmul_precision)
    examples = Examples(train, np.arange(len(train)), data.preprocess, skip_corrupt=config.data.skip_corrupt)
    views = config.finetune.views
    with display.counting("features") as advance:
        vectors, readable = features_of(
            backbone,
            examples,
            views,
            root=cache_directory() / "features",
            source=config.data.source,
            name="train",
            threads=data.threads,
            say=display.say,
            advance=advance,
        )
    vectors, labels = vectors[readable], examples.labels[readable]
    split, chosen = examples.stored
    chosen = chosen[readable]
    loss = find_loss(config.loss, several_labels=examples.several_labels)
    judge = Judge(loss, classes)
    groups = None if train.groups is None else train.groups[readable]
    done: list[Fold] = []
    fold_numbers: dict[int, tuple[int, ...]] = {}
    for seed in seeds:
        numbers = fold_of(split.identities[chosen], folds, seed, groups)
        fold_numbers[seed] = tuple(numbers.tolist())
        for number in range(folds):
            rest, held = np.flatnonzero(numbers != number), np.flatnonzero(numbers == number)
            if not len(held) or not len(rest):
                raise UserError(f"fold {number} of {folds} has no image: take fewer folds")
            own = None if groups is None else groups[rest]
            inner = fold_of(split.identities[chosen[rest]], _INNER, seed + 1, own)
            value, figures = _fold(
                vectors,
                labels,
                rest,
                held,
                inner,
                config=config,
                classes=classes,
                activation=loss.activation,
                judge=judge,
            )
            done.append(Fold(seed=seed, number=number, regularisation=value, figures=figures))
            display.say(line(done[-1]))
    names = tuple(split.name(int(i)) for i in chosen)
    return Folds(folds=tuple(done), names=names, fold_of=fold_numbers, seconds=time.monotonic() - began)


def _with_test(source: Source) -> Source:
    """Returns a source that can be opened; nothing is measured on its test split here."""
    train = source.splits["train"]
    return replace(source, splits={"train": train, "test": source.splits.get("test", train)})


def _fold(
    vectors: Float[np.ndarray, "n v f"],
    labels: Int[np.ndarray, "..."],
    rest: Int[np.ndarray, " m"],
    held: Int[np.ndarray, " k"],
    inner: Int[np.ndarray, " m"],
    *,
    config: Config,
    classes: int,
    activation: Activation,
    judge: Judge,
) -> tuple[float, Figures]:
    """Returns the regularisation that was taken, and how good the head is on what was held out."""

    def all_views(indices: np.ndarray) -> Data:
        return Data(vectors[indices].reshape(-1, vectors.shape[2]), np.repeat(labels[indices], vectors.shape[1], 0))

    def one_view(indices: np.ndarray) -> Data:
        return Data(vectors[indices, 0], labels[indices])

    spec = config.finetune
    solver = spec.solver or default_solver(labels[rest])
    common: dict[str, Any] = {"classes": classes, "activation": activation, "solver": solver}
    value, factor = spec.regularisation, 1.0
    if value is None:
        value, factor = choose_by_folds(
            lambda some: all_views(rest[some]), lambda some: one_view(rest[some]), inner, **common
        )
    head = fit_head(all_views(rest), None, path=(value,), judge=judge, **common).linear.scaled(factor)
    return value, judge(head(vectors[held, 0]), labels[held])


def line(fold: Fold) -> str:
    """Returns a fold's figures on one line."""
    shown = "  ".join(f"{name} {value:.4g}" for name, value in fold.figures.items() if isinstance(value, float))
    return f"seed {fold.seed} fold {fold.number}: {shown}  ({fold.figures['count']} images, {fold.regularisation:.3g})"
