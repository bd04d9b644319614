"""What a fine-tune does, from what there is: the data, the machine and the time."""

from dataclasses import dataclass, replace
from typing import Literal

import jax

from jaxnets.config import Config
from jaxnets.data.sources import Source
from jaxnets.models.family import Structure

_HELD_OUT = 0.2  # share of the training images that become validation where there is none
_MOST_HELD_OUT = 10_000  # images of them, where that is less
_LAST_COST, _ALL_COST = 3.5, 9.0  # a CPU's seconds for an image's training step, in those for its features (measured)
_USUAL = 0.01  # seconds for the features of an image, where they were not computed here
_COMPILATION = 40.0  # seconds, or so, before the first of them
_SURE = 0.8  # share of the time that is left which is planned with
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


_WHAT = {"last": "the last stages", "all": "all layers"}
_NO_TIME = "this is a CPU and no time was given (--config.finetune.minutes=30 trains the last stages too)"


def plan_of(config: Config) -> str:
    """Returns what is going to be done, and why, before anything is known of the time it takes."""
    spec, accelerated = config.finetune, jax.default_backend() != "cpu"
    views = "the images" if spec.views == 1 else "the images and their mirrors"
    if spec.views > 2:
        views += f" and {spec.views - 2} crops of each"
    text = f"a head is solved on features of {views}, computed once"
    if spec.method == "head":
        return f"{text}, and nothing else, as asked"
    if spec.method in ("last", "all"):
        return f"{text}; then {_WHAT[spec.method]} are trained, as asked"
    if accelerated:
        return f"{text}; then all layers are trained, since there is an accelerator"
    if spec.minutes is None and config.max_hours is None:
        return f"{text}, and nothing else, since {_NO_TIME}"
    return f"{text}; then the last stages are trained in what is left of the time, since this is a CPU"


@dataclass(frozen=True)
class After:
    """What follows the head."""

    method: Literal["last", "all"] | None  # None: nothing
    epochs: float = 0.0
    why: str | None = None  # where it is not what `plan_of` said

    @property
    def what(self) -> str:
        return _WHAT[self.method] if self.method else "nothing"


def decide(config: Config, *, images: int, seconds_left: float | None, seconds_per_image: float | None) -> After:
    """Returns what follows the head.

    Args:
        config: `finetune.method` and `epochs` are asked for.
        images: that are trained on.
        seconds_left: of the time that was given; None: none was.
        seconds_per_image: that the features of one took; None where that is not known.
    """
    asked, accelerated = config.finetune.method, jax.default_backend() != "cpu"
    if asked == "head" or (asked == "auto" and not accelerated and seconds_left is None):
        return After(None)
    method: Literal["last", "all"] = "all" if asked == "all" or (asked == "auto" and accelerated) else "last"
    epochs = config.epochs
    if seconds_left is not None and not accelerated:
        cost = (_LAST_COST if method == "last" else _ALL_COST) * (seconds_per_image or _USUAL)
        epochs = min(epochs, _SURE * (seconds_left - _COMPILATION) / (cost * images))
        if epochs < _LEAST_EPOCHS:
            left = f"the {max(seconds_left, 0) / 60:.1f} minutes that are left"
            return After(None, why=f"{left} are too few to train {_WHAT[method]} for an epoch")
    return After(method, epochs)


def training_after(config: Config, after: After, structure: Structure, images: int) -> Config:
    """Returns the config of the training that follows the head."""
    epochs = round(after.epochs, 2)
    freeze = config.freeze
    if after.method == "last" and not freeze.freezes:
        stages = list(structure.stages)
        freeze = replace(freeze, before=stages[-min(config.finetune.last_stages, len(stages))])
    steps = config.steps or epochs * images / config.batch_size
    return replace(
        config,
        epochs=epochs,
        freeze=freeze,
        schedule=config.schedule.stretched(epochs / config.epochs),
        ema=replace(config.ema, decay=config.ema.decay or (_AVERAGED if steps > _LONG else None)),
    )
