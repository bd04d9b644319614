"""The pure parts of a run, from its config: model, schedule, first state and step."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from flax import linen as nn

from jaxnets.config import Config
from jaxnets.data.augment import Augmentation
from jaxnets.data.dataset import Dataset
from jaxnets.errors import UserError
from jaxnets.models.describe import describe
from jaxnets.models.registry import create_model, field_names
from jaxnets.models.statistics import check_statistics
from jaxnets.train.optimizer import Schedule, make_optimizer, make_schedule
from jaxnets.train.step import TrainState, TrainStep, init_state, make_train_step

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Built:
    """What `build` returns."""

    model: nn.Module
    fields: dict[str, Any]  # of the model, as JSON values
    schedule: Schedule
    fresh_state: Callable[[], TrainState]
    step: TrainStep


def build(
    config: Config,
    data: Dataset,
    steps: int,
    own_fields: Mapping[str, Any] | None = None,
    part_sharding: jax.sharding.Sharding | None = None,
) -> Built:
    """Returns the model, the schedule over `steps` steps and the step that a config describes.

    `own_fields` are what pretrained weights say of the model; what the config says goes before. `part_sharding` is as
    for `make_train_step`, where config.accumulate_steps asks for parts.
    """
    fields = {**(own_fields or {}), **model_fields(config, len(data.class_names))}
    model = create_model(config.model.name, preprocess=data.preprocess, **fields)
    preprocess = data.preprocess
    norms = describe(model, preprocess.height, preprocess.width, preprocess.channels).norms
    if warning := check_statistics(norms, config.batch_norm.group_size or config.batch_size):
        _log.warning("%s", warning)
    schedule = make_schedule(config, steps, len(data.split("train")))
    optimizer = make_optimizer(config.optimizer, schedule)
    step = make_train_step(
        model,
        data.preprocess,
        optimizer,
        dtype=jax.numpy.dtype(config.dtype),
        seed=config.seed,
        augmentation=Augmentation(crop_padding=config.data.crop_padding, flip=config.data.flip),
        label_smoothing=config.label_smoothing,
        ema_decay=config.ema_decay,
        parts=config.accumulate_steps,
        part_sharding=part_sharding,
    )

    def fresh_state() -> TrainState:
        return init_state(model, data.preprocess, optimizer, config.seed, with_ema=config.ema_decay is not None)

    return Built(model=model, fields=fields, schedule=schedule, fresh_state=fresh_state, step=step)


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
