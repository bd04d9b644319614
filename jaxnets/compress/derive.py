"""The config of the run that makes another run's network smaller."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from jaxnets.config import Config, with_changes
from jaxnets.recipe.compress import CompressConfig
from jaxnets.recipe.finetune import FinetuneConfig
from jaxnets.recipe.freeze import FreezeConfig
from jaxnets.recipe.progressive import ProgressiveConfig

# Of the run's own: a network that has most of what it learned needs less time, and a rate that does not undo it.
EPOCHS, RATE = 0.5, 0.5


def derived(config: Config, run: str, changes: Mapping[str, Any]) -> Config:
    """Returns a run's config for half as many epochs at half the rate, from its best weights.

    All that counts epochs or steps is halved with them. All layers train, at one size of images.

    Args:
        config: of the run.
        run: its directory, whose best weights are started from.
        changes: by full names of keys, on top.

    Raises:
        UserError: if these are wrong, or contradict the rest.
    """
    optimizer, schedule = config.optimizer, config.schedule
    rate, per_256 = optimizer.learning_rate, optimizer.learning_rate_per_256
    until, warmup = config.mix.until_epoch, schedule.warmup_steps
    points, every = schedule.piecewise.steps, schedule.exponential.every_steps
    stretched = schedule.stretched(EPOCHS)
    shorter = replace(
        config,
        epochs=EPOCHS * config.epochs,
        steps=None if config.steps is None else max(1, round(EPOCHS * config.steps)),
        model=replace(config.model, pretrained=run),
        optimizer=replace(
            optimizer,
            learning_rate=None if rate is None else RATE * rate,
            learning_rate_per_256=None if per_256 is None else RATE * per_256,
        ),
        schedule=replace(
            stretched,
            warmup_steps=None if warmup is None else round(EPOCHS * warmup),
            piecewise=replace(
                stretched.piecewise, steps=None if points is None else tuple(EPOCHS * point for point in points)
            ),
            exponential=schedule.exponential
            if schedule.name != "exponential"
            else replace(stretched.exponential, every_steps=None if every is None else max(1, round(EPOCHS * every))),
        ),
        mix=replace(config.mix, until_epoch=None if until is None else EPOCHS * until),
        freeze=FreezeConfig(),
        progressive=ProgressiveConfig(),
        finetune=FinetuneConfig(),
        compress=CompressConfig(),
    )
    return with_changes(asdict(shorter), changes)
