"""What a fine-tune does, from what there is: the data, the machine and the time."""

from dataclasses import dataclass, replace

import jax

from jaxnets.config import Config
from jaxnets.data.sources import Source
from jaxnets.models.family import Structure

_HELD_OUT = 0.2  # share of the training images that become validation where there is none
_MOST_HELD_OUT = 10_000  # images of them, where that is less
_LAST_COST, _ALL_COST = 5.0, 14.0  # a CPU's seconds for an image's training step, in those for its features
_LEAST_EPOCHS = 1.0  # a training that has time for less is left out
_LONG = 2000  # steps, from which on weights are averaged
_AVERAGED = 0.999


def with_defaults(config: Config, source: Source) -> tuple[Config, list[str]]:
    """Returns the config with what the data and the model decide, and what was decided, a sentence each."""
    said = []
    model, data = config.model, config.data
    if model.pretrained is None:
        model = replace(model, pretrained=model.name)
    if "validation" not in source.splits and not data.validation and data.folds is None:
        images = len(source.splits["train"])
        data = replace(data, validation=min(_HELD_OUT, _MOST_HELD_OUT / max(images, 1)))
        said.append(f"about {data.validation:.0%} of the training images are held out for validation")
    loss = config.loss
    if source.splits["train"].targets is not None and getattr(loss, loss.name).activation != "sigmoid":
        loss = replace(loss, name="sigmoid_cross_entropy")
        said.append("images may have several labels, so each class is decided by itself (sigmoid_cross_entropy)")
    return replace(config, model=model, data=data, loss=loss), said


@dataclass(frozen=True)
class After:
    """What follows the head."""

    method: str | None  # last, all, or None: nothing
    epochs: float
    why: str


def decide(config: Config, *, images: int, seconds_left: float | None, seconds_per_image: float | None) -> After:
    """Returns what follows the head, and why.

    Args:
        config: `finetune.method` and `epochs` are asked for.
        images: that are trained on.
        seconds_left: of the time that was given; None: none was.
        seconds_per_image: that its features took; None where they were not computed.
    """
    method, accelerated = config.finetune.method, jax.default_backend() != "cpu"
    if method == "head":
        return After(None, 0.0, "the head alone was asked for")
    if method == "auto":
        if not accelerated and seconds_left is None:
            why = "this is a CPU and no time was given: --config.finetune.minutes=30 trains the last stages too"
            return After(None, 0.0, why)
        method, why = ("all", "there is an accelerator") if accelerated else ("last", "this is a CPU with time left")
    else:
        why = "that was asked for"
    epochs = config.epochs
    if seconds_left is not None and not accelerated:
        cost = (_LAST_COST if method == "last" else _ALL_COST) * (seconds_per_image or 0.01)
        epochs = min(epochs, seconds_left / (cost * images))
        if epochs < _LEAST_EPOCHS:
            return After(None, 0.0, f"{seconds_left / 60:.1f} minutes are too few to train {method} layers as well")
    return After(method, epochs, why)


def training_after(config: Config, after: After, structure: Structure, images: int) -> Config:
    """Returns the config of the training that follows the head."""
    epochs = round(after.epochs, 2)
    share = config.schedule.warmup_epochs / config.epochs
    steps = config.steps or epochs * images / config.batch_size
    return replace(
        config,
        epochs=epochs,
        schedule=replace(config.schedule, warmup_epochs=round(share * epochs, 3)),
        ema_decay=config.ema_decay or (_AVERAGED if steps > _LONG else None),
    )
