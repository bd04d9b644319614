"""The pure parts of a run, from its config: model, recipe, first state and steps."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from flax import linen as nn

from jaxnets.config import Config
from jaxnets.data.batch import Batch
from jaxnets.data.boxes import Boxes
from jaxnets.data.dataset import Dataset
from jaxnets.errors import UserError
from jaxnets.metrics import table
from jaxnets.metrics.metric import Metric, Sums
from jaxnets.models.describe import describe
from jaxnets.models.family import Variables
from jaxnets.models.registry import create_model, family_of, field_names
from jaxnets.models.statistics import check_statistics
from jaxnets.recipe.augment.table import cut_and_ops
from jaxnets.recipe.ema import Average
from jaxnets.recipe.groups import layer_decay
from jaxnets.recipe.losses.table import find_loss
from jaxnets.recipe.mix import Mixup
from jaxnets.recipe.optimizer import make_optimizer
from jaxnets.recipe.recipe import Recipe
from jaxnets.recipe.schedule import make_schedule, total_steps
from jaxnets.train.boxes import make_boxes
from jaxnets.train.step import TrainState, TrainStep, cut_number, init_state, make_eval_step, make_train_step

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Built:
    """What `build` returns."""

    model: nn.Module
    fields: dict[str, Any]  # of the model, as JSON values
    recipe: Recipe
    step_metrics: tuple[Metric, ...]
    fresh_state: Callable[[], TrainState]
    step: TrainStep
    boxes: Boxes | None  # of training images that the host cuts
    eval_step: Callable[[Variables, Batch], Sums]


def steps_of(config: Config, data: Dataset) -> int:
    """Returns how many steps the run has."""
    return total_steps(config.steps, config.epochs, len(data.training) / config.batch_size)


def build(
    config: Config,
    data: Dataset,
    own_fields: Mapping[str, Any] | None = None,
    sharding: jax.sharding.Sharding | None = None,
) -> Built:
    """Returns the model, its recipe and the steps that a config describes.

    `own_fields` are what pretrained weights say of the model; what the config says goes before. `sharding` is that of
    the micro-batches `[n, b / n, …]`, where config.accumulate_steps asks for some.
    """
    fields = {**(own_fields or {}), **model_fields(config, len(data.class_names))}
    model = create_model(config.model.name, preprocess=data.preprocess, **fields)
    p = data.training_preprocess
    norms = describe(model, p.height, p.width, p.channels).norms
    if warning := check_statistics(norms, config.batch_norm.group_size or config.batch_size):
        _log.warning("%s", warning)
    recipe = make_recipe(config, data, model)
    step_metrics = tuple(table.OF_A_STEP[name] for name in config.train_metrics)
    step = make_train_step(
        model,
        data.preprocess,
        recipe,
        seed=config.seed,
        micro_batches=config.accumulate_steps,
        sharding=sharding,
        metrics=step_metrics,
    )
    return Built(
        model=model,
        fields=fields,
        recipe=recipe,
        step_metrics=step_metrics,
        fresh_state=lambda: init_state(model, data.preprocess, recipe, config.seed),
        step=step,
        boxes=make_boxes(recipe.cut, cut_number(recipe), config.seed),
        eval_step=make_eval_step(model, data.preprocess, recipe.loss),
    )


def make_recipe(config: Config, data: Dataset, model: nn.Module) -> Recipe:
    """Returns the recipe of a config."""
    seen = data.training_preprocess
    padding, shortest = config.augment.pad_and_crop.padding, min(seen.height, seen.width)
    if padding >= shortest:
        raise UserError(
            f"config.augment.pad_and_crop.padding {padding} would crop images of {shortest} pixels that are all black: "
            f"give less than {shortest}, an eighth of it as a rule"
        )
    if config.augment.quarter_turn.probability and seen.height != seen.width:
        raise UserError(
            f"config.augment.quarter_turn turns images by 90°, and those of {seen.height}×{seen.width} are not square: "
            f"leave it out, or set config.data.image_size to one number"
        )
    cut, ops = cut_and_ops(config.augment, seen, canvas_is_input=data.canvas_is_input, cut_by_host=data.cut_by_host)
    steps_per_epoch = len(data.training) / config.batch_size
    peak = config.optimizer.learning_rate
    schedule = make_schedule(config.schedule, peak, steps_of(config, data), steps_per_epoch)
    decay = config.optimizer.layer_decay
    rates = layer_decay(family_of(model).structure(model).groups(), decay) if decay < 1 else None
    return Recipe(
        cut=cut,
        ops=ops,
        mix=Mixup(alpha=config.mix.mixup) if config.mix.mixup else None,
        loss=find_loss(config.loss, several_labels=data.several_labels),
        label_smoothing=config.loss.label_smoothing,
        optimizer=make_optimizer(config.optimizer, schedule, rates),
        schedule=schedule,
        average=Average(decay=config.ema_decay) if config.ema_decay is not None else None,
    )


def model_fields(config: Config, classes: int) -> dict[str, Any]:
    """Returns the fields that the config gives the model, as JSON values.

    Raises:
        UserError: for a key of config.model that the model has no field for.
    """
    known = field_names(config.model.name)
    for key, value in vars(config.model).items():
        if key not in ("name", "pretrained", *known) and value is not None:
            raise UserError(
                f"config.model.{key} is {value!r}, but {config.model.name} has no such field: leave it out "
                f"(None), or take another model"
            )
    fields: dict[str, Any] = {
        "num_classes": classes,
        "dtype": config.dtype,
        "norm_decay": config.batch_norm.decay,
        "norm_epsilon": config.batch_norm.epsilon,
        "shortcut": config.model.shortcut,
        "dropout": config.model.dropout,
        "stochastic_depth": config.model.stochastic_depth,
        "zero_init_last_norm": config.model.zero_init_last_norm,
    }
    own = {name: value for name, value in fields.items() if value is not None}
    # These are of the training and not of the weights, so that None means none, whatever the weights came with.
    of_training = {"norm_group_size": config.batch_norm.group_size, "remat_stages": config.model.remat_stages or 0}
    return own | {name: value for name, value in of_training.items() if name in known}
