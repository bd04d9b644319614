"""The config of the run that makes another run's network smaller."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from jaxnets.config import Config, with_changes
from jaxnets.recipe.compress import CompressConfig
from jaxnets.recipe.finetune import FinetuneConfig
from jaxnets.recipe.freeze import FreezeConfig
from jaxnets.recipe.progressive import ProgressiveConfig


class Shares(NamedTuple):
    """Of the run's own epochs, and of its own rate."""

    epochs: float
    rate: float


# A network that has most of what it learned needs less time, and a rate that does not undo it.
SHARES: Mapping[str, Shares] = {
    "magnitude": Shares(0.5, 0.5),
    "channels": Shares(0.5, 0.5),
    "qat": Shares(0.25, 0.1),  # all that it learned is there, and only has to fit its grids
}


def derived(config: Config, run: str, shares: Shares, changes: Mapping[str, Any]) -> Config:
    """Returns a run's config for a share of its epochs, at a share of its rate, from its best weights.

    All that counts epochs or steps is less with them. All layers train, at one size of images.

    Args:
        config: of the run.
        run: its directory, whose best weights are started from.
        shares: of epochs and rate.
        changes: by full names of keys, on top.

    Raises:
        UserError: if these are wrong, or contradict the rest.
    """
    optimizer, schedule = config.optimizer, config.schedule
    rate, per_256 = optimizer.learning_rate, optimizer.learning_rate_per_256
    until, warmup = config.mix.until_epoch, schedule.warmup_steps
    points = schedule.piecewise.steps
    stretched, exponential = schedule.stretched(shares.epochs), schedule.exponential
    if schedule.name == "exponential":
        every = None if exponential.every_steps is None else max(1, round(shares.epochs * exponential.every_steps))
        exponential = replace(stretched.exponential, every_steps=every)
    shorter = replace(
        config,
        epochs=shares.epochs * config.epochs,
        steps=None if config.steps is None else max(1, round(shares.epochs * config.steps)),
        model=replace(config.model, pretrained=run),
        optimizer=replace(
            optimizer,
            learning_rate=None if rate is None else shares.rate * rate,
            learning_rate_per_256=None if per_256 is None else shares.rate * per_256,
        ),
        schedule=replace(
            stretched,
            warmup_steps=None if warmup is None else round(shares.epochs * warmup),
            piecewise=replace(
                stretched.piecewise, steps=None if points is None else tuple(shares.epochs * point for point in points)
            ),
            exponential=exponential,
        ),
        mix=replace(config.mix, until_epoch=None if until is None else shares.epochs * until),
        freeze=FreezeConfig(),
        progressive=ProgressiveConfig(),
        finetune=FinetuneConfig(),
        compress=CompressConfig(),
    )
    return with_changes(asdict(shorter), changes)
