"""Evaluates a run directory: nothing else is needed but the data."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxnets.classifier import Weights, load
from jaxnets.data.dataset import open_dataset
from jaxnets.errors import UserError
from jaxnets.evaluate.report import metrics_report
from jaxnets.recipe.losses.table import find_loss
from jaxnets.run.directory import RunDirectory
from jaxnets.train.evaluation import evaluate_split, jit_eval_step
from jaxnets.train.mesh import make_mesh, put, replicated, round_up
from jaxnets.train.step import make_eval_step


def evaluate_run(
    run: RunDirectory,
    *,
    split: str = "test",
    batch_size: int | None = None,
    checkpoint: str | int = "best",
    weights: Weights = "ema",
    source: str | None = None,
) -> dict[str, Any]:
    """Returns the metrics of a checkpoint on a split, as report/metrics.json holds them, computed on all devices.

    Raises:
        UserError: if the run, the split or the data is missing, or if the data is not the run's.
    """
    config, card = run.read_config(), run.read_model()
    if source is not None:
        config = replace(config, data=replace(config.data, source=source))
    data = open_dataset(config, card.preprocess)
    examples = data.split(split)
    if data.class_names != card.class_names:
        raise UserError(
            f"{config.data.source} has the classes {', '.join(data.class_names)}, the model was trained on "
            f"{', '.join(card.class_names)}: give the data of the run with --source"
        )
    if source is None and data.fingerprint() != card.data:
        raise UserError(
            f"{config.data.source} is no longer the data of this run (then {card.data}, now {data.fingerprint()}), and "
            f"images it was trained on may be among the {split} split now: put the data back, or say with --source "
            f"{config.data.source} that you mean this data"
        )
    classifier = load(run.path, checkpoint, weights)
    mesh = make_mesh()
    everywhere = replicated(mesh)
    jax.config.update("jax_default_matmul_precision", card.matmul_precision)
    total = evaluate_split(
        jit_eval_step(make_eval_step(classifier.model, card.preprocess, find_loss(config.loss)), mesh),
        jax.tree.map(lambda x: put(np.asarray(x), everywhere), classifier.variables),
        examples,
        batch_size=round_up(batch_size or config.eval_batch_size or config.batch_size, mesh),
        mesh=mesh,
        threads=data.threads,
    )
    assert total is not None  # nothing stops it
    return metrics_report(total, card.class_names, split=split, model=classifier.name, step=classifier.step)
