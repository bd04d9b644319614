"""Evaluates a run directory: nothing else is needed but the data."""

import os
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxnets.cache import use_compilation_cache
from jaxnets.classifier import Classifier, Weights, load
from jaxnets.config import Config
from jaxnets.data.dataset import Dataset, Labelled, open_dataset, open_evaluation
from jaxnets.data.examples import Examples
from jaxnets.data.fingerprint import changes
from jaxnets.errors import UserError
from jaxnets.evaluate.report import metrics_report
from jaxnets.metrics import table
from jaxnets.metrics.metric import Metric
from jaxnets.metrics.several_labels import F1_AT_HALF, MEAN_AVERAGE_PRECISION, SCORES
from jaxnets.metrics.thresholds import choose_thresholds
from jaxnets.recipe.losses.table import find_loss
from jaxnets.run.directory import ModelCard, RunDirectory, open_run
from jaxnets.train.evaluation import evaluate_split, jit_eval_step
from jaxnets.train.mesh import make_mesh, put, replicated, round_up
from jaxnets.train.step import make_eval_step

_MOST_SCORES = 2**28  # kept in memory, of 5 bytes each


def evaluate(
    workdir: str | os.PathLike[str],
    *,
    split: str = "test",
    checkpoint: str | int = "best",
    weights: Weights = "ema",
    source: str | None = None,
    batch_size: int | None = None,
    thresholds: str | None = None,
) -> dict[str, Any]:
    """Evaluates a run: every example of a split exactly once, as `python -m jaxnets.evaluate`; writes no report.

    Args:
        workdir: the run directory, which may be gs://BUCKET/RUN.
        split: "test", "train", or "validation" where there is one.
        checkpoint: "best", "newest", or a step.
        weights: "ema" for the averaged weights where the run keeps them, or "raw".
        source: other data to evaluate on, or where the run's own lies now, as config.data.source.
        batch_size: examples at a time; changes the speed, not the result.
        thresholds: a split ("validation") on which each label's threshold is chosen anew first, and kept in the run's
            model.json; for images that may have several labels.

    Returns:
        What metrics.json holds: accuracy, loss, count, per_class, …

    Raises:
        UserError: if the run, the split or the data is missing, or if the data is not the run's.
    """
    use_compilation_cache()
    run = open_run(str(workdir))
    return evaluate_run(
        run,
        split=split,
        batch_size=batch_size,
        checkpoint=checkpoint,
        weights=weights,
        source=source,
        choose_on=thresholds,
    )


def evaluate_run(
    run: RunDirectory,
    *,
    split: str = "test",
    batch_size: int | None = None,
    checkpoint: str | int = "best",
    weights: Weights = "ema",
    source: str | None = None,
    choose_on: str | None = None,
) -> dict[str, Any]:
    """Returns the metrics of a checkpoint on a split, as report/metrics.json holds them, computed on all devices.

    Args:
        split: of the data; where that has only one split, it is that one.
        source: the run's own data where it lies now, or other data, of which nothing is held out: classes are matched
            by name.
        choose_on: a split on which the thresholds of several labels are chosen first, and kept in model.json.

    Raises:
        UserError: if the run, the split or the data is missing, or if the data is not the run's.
    """
    config, card = run.read_config(), run.read_model()
    data = open_data(config, card, split, source)
    if split not in data.splits and len(data.splits) == 1:
        split = next(iter(data.splits))
    examples, notes = data.split(split), [*data.notes]
    classifier = load(run.path, checkpoint, weights)
    size = batch_size or config.eval_batch_size or config.batch_size
    if choose_on is not None:
        classifier = _with_thresholds(run, card, classifier, config, data, choose_on, size)
        if choose_on == split:
            notes.append(f"the thresholds were chosen on these images: F1 is lower on others ({split})")
    metrics = table.EVALUATION
    if examples.several_labels:
        metrics += (F1_AT_HALF,) if classifier.thresholds else ()
        if len(examples) * len(card.class_names) <= _MOST_SCORES:
            metrics += (SCORES,)
        else:
            notes.append("average precision is of scores in bins of 0.05 logits: there are too many to keep")
    total = _evaluate(classifier, config, examples, data.threads, size, metrics)
    report = metrics_report(
        total,
        card.class_names,
        split=split,
        model=classifier.name,
        step=classifier.step,
        thresholds=classifier.thresholds,
    )
    return {**report, "source": config.data.source if source is None else source, "notes": notes}


def _evaluate(
    classifier: Classifier,
    config: Config,
    examples: Examples,
    threads: int,
    batch_size: int,
    metrics: tuple[Metric, ...],
) -> dict[str, np.ndarray]:
    """Returns the sums of metrics over all examples, with the answers that the classifier gives."""
    loss = find_loss(config.loss, several_labels=examples.several_labels)
    mesh = make_mesh()
    everywhere = replicated(mesh)
    jax.config.update("jax_default_matmul_precision", classifier.matmul_precision)
    step = make_eval_step(classifier.model, classifier.preprocess, loss, metrics, classifier.thresholds)
    total = evaluate_split(
        jit_eval_step(step, mesh),
        jax.tree.map(lambda x: put(np.asarray(x), everywhere), classifier.variables),
        examples,
        batch_size=round_up(batch_size, mesh),
        mesh=mesh,
        threads=threads,
    )
    assert total is not None  # nothing stops it
    return total


def _with_thresholds(
    run: RunDirectory,
    card: ModelCard,
    classifier: Classifier,
    config: Config,
    data: Labelled,
    split: str,
    batch_size: int,
) -> Classifier:
    """Returns the classifier with thresholds chosen on a split, which model.json then holds.

    Raises:
        UserError: if its images have one label, if there is no such split, or if model.json cannot be written.
    """
    if not card.several_labels:
        raise UserError(
            "--thresholds is for runs whose images may have several labels, and this run's have one: leave it out"
        )
    if split not in data.splits:
        raise UserError(
            f"--thresholds needs images that were not trained on, and there is no split {split!r}: give one of "
            f"{', '.join(data.splits)}, other data with --source, or train with --config.data.validation=0.2"
        )
    run.check_writable()
    total = _evaluate(classifier, config, data.split(split), data.threads, batch_size, (MEAN_AVERAGE_PRECISION,))
    thresholds = choose_thresholds(total)
    if jax.process_index() == 0:
        run.write_model(replace(card, thresholds=thresholds))
    return replace(classifier, thresholds=thresholds)


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
    try:
        data = open_dataset(given, card.preprocess)
        # In the run's own folder, changed, what was held out still is, whereas all of it was trained on.
        own = _is_same(source, config.data.source) and data.class_names == card.class_names
        if own or not _changes(data, card):
            return data
    except UserError:  # data to evaluate on need not be fit to train on
        pass
    found = open_evaluation(given, card.preprocess, card.class_names)
    if "all" not in found.splits:
        return found
    warning = f"all images of {source} are evaluated: if the model was trained on some of them, it looks too good"
    return replace(found, notes=(*found.notes, warning))


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
