"""Evaluates a run directory: nothing else is needed but the data."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.errors import FlaxError

from jaxnets.classifier import Classifier
from jaxnets.config import Config
from jaxnets.data.dataset import Dataset, Labelled, open_dataset, open_evaluation
from jaxnets.data.examples import Examples
from jaxnets.data.fingerprint import changes
from jaxnets.errors import UserError
from jaxnets.evaluate.asked import Asked, OnnxModel, open_onnx
from jaxnets.evaluate.calibrate import Wanted, check, fit
from jaxnets.evaluate.class_maps import find_class_map, open_mapped, real_figures, restricted
from jaxnets.evaluate.decisions import decided
from jaxnets.evaluate.opened import OpenedModel
from jaxnets.evaluate.predictions import Predictions, collect
from jaxnets.evaluate.report import metrics_report
from jaxnets.evaluate.several_labels import JudgedSeveral, judge_several
from jaxnets.evaluate.single_label import Judged, judge
from jaxnets.evaluate.sums import sums_over
from jaxnets.evaluate.views import Views, find_views
from jaxnets.loading import Weights, load
from jaxnets.metrics import table
from jaxnets.metrics.several_labels import F1_AT_HALF, MEAN_AVERAGE_PRECISION
from jaxnets.metrics.thresholds import choose_thresholds
from jaxnets.models.forward import forward
from jaxnets.recipe.losses.table import find_loss
from jaxnets.run.directory import ModelCard, RunDirectory
from jaxnets.trust.costs import Costs, read_costs
from jaxnets.trust.temperature import at_temperature


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An evaluation of a run on a split, and all that a report of it is drawn from."""

    run: RunDirectory
    config: Config
    card: ModelCard
    asked: Asked  # who answered
    classifier: Classifier | None  # the run's own, which can be asked for reasons; None where it cannot be opened
    examples: Examples
    predictions: Predictions
    judged: Judged | JudgedSeveral
    temperature: float  # that the probabilities are taken at
    metrics: dict[str, Any]  # as metrics.json holds them


def evaluate_run(run: RunDirectory, **options: Any) -> dict[str, Any]:
    """Returns the metrics of a checkpoint on a split, as report/metrics.json holds them; as `judge_run`."""
    return judge_run(run, **options).metrics


def judge_run(
    run: RunDirectory,
    *,
    split: str = "test",
    batch_size: int | None = None,
    checkpoint: str | int = "best",
    weights: Weights = "ema",
    source: str | None = None,
    choose_on: str | None = None,
    model: Path | None = None,
    tta: str | None = None,
    size: int | tuple[int, int] | None = None,
    class_map: str | None = None,
    wanted: Wanted | None = None,
    costs: Path | None = None,
) -> Evaluation:
    """Returns a checkpoint's evaluation on a split, computed on all devices.

    Args:
        split: of the data; where that has only one split, it is that one.
        source: the run's own data where it lies now, or other data, of which nothing is held out: classes are matched
            by name.
        choose_on: a split on which the thresholds of several labels are chosen first, and kept in model.json.
        model: an ONNX file of the run that answers in its place.
        tta: the name of views (`jaxnets.evaluate.views`).
        size: that images are brought to, a side or height and width.
        class_map: how the folders of a test set for ImageNet's classes are read (`jaxnets.evaluate.class_maps`).
        wanted: what is fitted first, and kept in model.json.
        costs: a file of what decisions cost.

    Raises:
        UserError: if the run, the split or the data is missing, or if the data is not the run's.
    """
    config, card = run.read_config(), run.read_model()
    mapped = None if class_map is None else find_class_map(class_map)
    views = None if tta is None else find_views(tta)
    asked, classifier = _who(run, card, checkpoint, weights, model, size)
    fitted = asked.preprocess if views is None else views.fit(asked.preprocess)
    if mapped is None:
        data = open_data(config, replace(card, preprocess=fitted), split, source)
    else:
        data = open_mapped(config, fitted, card.class_names, mapped, source)
    if split not in data.splits and len(data.splits) == 1:
        split = next(iter(data.splits))
    examples, notes = data.split(split), [*data.notes]
    batch = batch_size or config.eval_batch_size or config.batch_size
    loss = find_loss(config.loss, several_labels=examples.several_labels)

    def predict(name: str) -> Predictions:
        return collect(asked, data.split(name), split=name, batch_size=batch, threads=data.threads, views=views)

    thresholds = asked.thresholds
    if choose_on is not None:
        _refuse_thresholds(run, card, data, choose_on, model)
        total = sums_over(predict(choose_on), loss, (MEAN_AVERAGE_PRECISION,))
        thresholds = choose_thresholds(total)
        card = replace(card, thresholds=thresholds)
        if jax.process_index() == 0:
            run.write_model(card)
        assert isinstance(asked, Classifier)
        thresholds = at_temperature(thresholds, asked.temperature)
        asked = replace(asked, thresholds=thresholds)
        if choose_on == split:
            notes.append(f"the thresholds were chosen on these images: F1 is lower on others ({split})")
    changed = "--model" if model is not None else "--tta" if tta is not None else "--size" if size is not None else None
    if wanted is not None and wanted.anything:
        check(run, card, data, wanted, changed)
        assert isinstance(asked, Classifier)
        card, asked, said = fit(run, card, asked, data, wanted, predict(wanted.split), weights)
        classifier, thresholds = asked, asked.thresholds
        notes += said
        if wanted.split == split:
            notes.append(f"what was fitted was fitted on these images, and looks better on them ({split})")
    matrix = None if costs is None else _costs(costs, card)
    predictions = predict(split)
    real = {}
    if mapped is not None:
        real = real_figures(predictions, mapped)
        predictions = restricted(predictions, mapped)
        card = replace(card, class_names=predictions.class_names)
    if left_out := len(examples) - len(predictions):
        notes.append(f"{left_out} images cannot be read and were left out")
    temperature = asked.temperature or 1.0
    metrics = table.EVALUATION
    judged: Judged | JudgedSeveral
    if examples.several_labels:
        metrics += (F1_AT_HALF,) if thresholds else ()
        judged = judge_several(predictions, thresholds, temperature)
    else:
        judged = judge(predictions, temperature)
    total = sums_over(predictions, loss, metrics, at_temperature(thresholds, 1 / temperature))
    report = metrics_report(
        total, card.class_names, split=split, model=asked.name, step=asked.step, thresholds=thresholds
    )
    how = _how(asked, views, size)
    notes += how.values()
    decider = None
    if classifier is not None and mapped is None:  # what was fitted, or costs, is of the model's classes among all
        decider = replace(classifier, temperature=asked.temperature, refusal=asked.refusal)
    if decider is not None and (tta is not None or size is not None):
        decider = replace(decider, refusal=None)  # its bounds are of the model's own answers
    decisions = {} if decider is None else decided(decider, predictions, examples, data.threads, matrix)
    return Evaluation(
        run=run,
        config=config,
        card=card,
        asked=asked,
        classifier=classifier,
        examples=examples,
        predictions=predictions,
        judged=judged,
        temperature=temperature,
        metrics={
            **real,
            **merged(report, judged),
            **({} if class_map is None else {"class_map": class_map}),
            **{key: str(model) if key == "file" else tta if key == "tta" else size for key in how},
            "weights": weights,
            **decisions,
            "source": config.data.source if source is None else source,
            "notes": notes,
        },
    )


def _who(
    run: RunDirectory,
    card: ModelCard,
    checkpoint: str | int,
    weights: Weights,
    model: Path | None,
    size: int | tuple[int, int] | None,
) -> tuple[Asked, Classifier | None]:
    """Returns who is asked, and the run's own classifier.

    Raises:
        UserError: if it cannot be opened, is not of this run, or cannot be asked at this size.
    """
    if model is None:
        classifier = run.classifier if isinstance(run, OpenedModel) else load(run.path, checkpoint, weights)
        if size is not None:
            classifier = at_size(classifier, size)
        return classifier, classifier
    if size is not None:
        raise UserError(
            f"an ONNX file takes images of the size that it was exported with, and --size asks for {_by(size)}: leave "
            "--size or --model out"
        )
    asked = open_onnx(model)
    if asked.labels != card.class_names:
        raise UserError(
            f"{model} answers with {len(asked.labels)} classes ({_brief(asked.labels)}), and {run.path} has "
            f"{len(card.class_names)} ({_brief(card.class_names)}): give the run that it was exported from"
        )
    try:
        return asked, load(run.path, checkpoint, weights)
    except UserError:  # the file answers alone
        return asked, None


def at_size(classifier: Classifier, size: int | tuple[int, int]) -> Classifier:
    """Returns the classifier with images of another size.

    Raises:
        UserError: if its network is made for images of one size.
    """
    height, width = (size, size) if isinstance(size, int) else size
    own = classifier.preprocess
    changed = replace(classifier, preprocess=replace(own, height=height, width=width))
    image = jax.ShapeDtypeStruct((1, height, width, own.channels), jnp.uint8)
    try:
        jax.eval_shape(lambda images: forward(changed.model, changed.preprocess, changed.variables, images), image)
    except (FlaxError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"{classifier.name} cannot be asked at {height}×{width}: its layers are made for images of "
            f"{own.height}×{own.width}. Leave --size out, or give a larger one"
        ) from error
    return changed


def _how(asked: Asked, views: Views | None, size: int | tuple[int, int] | None) -> dict[str, str]:
    """Returns in words what was other than usual, by the key that metrics.json has for it."""
    said = {}
    if isinstance(asked, OnnxModel):
        said["file"] = f"answered by {asked.file.name} in ONNX Runtime"
    if views is not None:
        said["tta"] = f"test-time augmentation {views.name}: the mean of the logits of {views.said}"
    if size is not None:
        said["size"] = f"images of {_by(size)} in place of the model's own size"
    return said


def _by(size: int | tuple[int, int]) -> str:
    return "×".join(map(str, (size, size) if isinstance(size, int) else size))


def merged(report: dict[str, Any], judged: Judged | JudgedSeveral) -> dict[str, Any]:
    """Returns the report with all that was judged; what takes many lines comes last."""
    rows = {
        name: {**row, **more} for (name, row), more in zip(report["per_class"].items(), judged.per_class, strict=True)
    }
    whole = {**report, **judged.figures}
    last = {key: whole.pop(key) for key in ("per_class", "confusion")}
    return {**whole, **last, "per_class": rows}


def _costs(file: Path, card: ModelCard) -> Costs:
    """Returns the cost matrix of a run's classes.

    Raises:
        UserError: if there is none, or the images may have several labels.
    """
    if card.several_labels:
        raise UserError(
            "--costs is for images of one label, and this run's may have several: leave it out, and choose --thresholds"
        )
    return read_costs(file, card.class_names)


def _refuse_thresholds(run: RunDirectory, card: ModelCard, data: Labelled, split: str, model: Path | None) -> None:
    """Refuses to choose thresholds where that means nothing, or where they cannot be kept.

    Raises:
        UserError: that says why.
    """
    if not card.several_labels:
        raise UserError(
            "--thresholds is for runs whose images may have several labels, and this run's have one: leave it out"
        )
    if model is not None:
        raise UserError(
            f"--thresholds chooses those of the run, and {model.name} has its own: leave --model out, and export again"
        )
    if split not in data.splits:
        raise UserError(
            f"--thresholds needs images that were not trained on, and there is no split {split!r}: give one of "
            f"{', '.join(data.splits)}, other data with --source, or train with --config.data.validation=0.2"
        )
    run.check_writable()


def open_data(config: Config, card: ModelCard, split: str, source: str | None) -> Labelled:
    """Opens what a run is evaluated on.

    Without `source` it is the run's data, where it was. Else it is what `source` names: the run's own data, which may
    lie elsewhere now, or other data, and then all of it, its classes matched by name. Where the run was of several
    labels per image, an image with a class has that label and no other, so that its figures are those of the run.

    Raises:
        UserError: if it cannot be read, has a class that the model does not know, or has changed since.
    """
    data = _open(config, card, split, source)
    if not card.several_labels or all(examples.several_labels for examples in data.splits.values()):
        return data
    for examples in data.splits.values():
        examples.allow_several_labels(len(card.class_names))
    note = "the model was trained on several labels per image: each image here is judged as having one and no other"
    return replace(data, notes=(*data.notes, note))


def _open(config: Config, card: ModelCard, split: str, source: str | None) -> Labelled:
    if source is None:
        data = open_dataset(config, card.preprocess)
        if changed := _changes(data, card):
            raise UserError(
                f"{config.data.source} is no longer the data of this run ({'; '.join(changed)}), and images it was "
                f"trained on may be among the {split} split now: put the data back, or say with --source "
                f"{config.data.source} that you mean this data"
            )
        return data
    root = config.data.root if _is_same(source, config.data.source) else None  # of other data, beside its table
    given = replace(config, data=replace(config.data, source=source, root=root))
    known = _of_run(given, card, own=_is_same(source, config.data.source)) if card.data else None
    if known is not None:
        return known
    found = open_evaluation(given, card.preprocess, card.class_names)
    if "all" not in found.splits:
        return found
    warning = f"all images of {source} are evaluated: if the model was trained on some of them, it looks too good"
    return replace(found, notes=(*found.notes, warning))


def _of_run(given: Config, card: ModelCard, *, own: bool) -> Dataset | None:
    """Returns data as the run had it, with what was held out; None where it is other data.

    In the run's own folder, changed, what was held out still is, whereas all of it was trained on.
    """
    try:
        data = open_dataset(given, card.preprocess)
    except UserError:  # data to evaluate on need not be fit to train on
        return None
    own = own and data.class_names == card.class_names
    return data if own or not _changes(data, card) else None


def _changes(data: Dataset, card: ModelCard) -> list[str]:
    if data.class_names != card.class_names:
        return [f"then of the classes {_brief(card.class_names)}, now of {_brief(data.class_names)}"]
    return changes(card.data, data.fingerprint())


def _is_same(source: str, other: str) -> bool:
    def located(text: str) -> tuple[str, str]:
        kind, _, rest = text.partition(":")
        return kind, os.path.realpath(os.path.expanduser(rest))

    return located(source) == located(other)


def _brief(names: tuple[str, ...]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
