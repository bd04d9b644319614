"""Progressive resizing: smaller images, and weaker regularisation, in the first stages of a run than in the last."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from jaxnets.errors import UserError
from jaxnets.schema import NonNegative, ZeroToBelowOne


@dataclass(frozen=True, kw_only=True)
class ProgressiveConfig:
    """Stages of a run, each of which trains at a size of its own.

    With `sizes` alone they have equal steps, as EfficientNetV2's (Tan & Le 2021, section 4; its code's sizes for 300
    pixels are 171, 214, 257, 300). FFCV's ramp, rounded to multiples of 32, is a list of them with `until_epochs`: of
    88 epochs, 160 until epoch 71 and then 192.
    """

    # Pixels of the images' height, one for each stage (the width follows in their aspect); the last is
    # config.data.image_size, and none is above it. (): one size.
    sizes: tuple[int, ...] = ()
    until_epochs: tuple[float, ...] = ()  # at which each stage but the last ends; (): all have equal steps
    # What regularises less at first: its strength in the first stage, from which it changes in equal parts to the
    # config's own in the last. None: it is constant.
    mixup_from: NonNegative | None = None  # of config.mix.mixup; EfficientNetV2: 0
    cutmix_from: NonNegative | None = None  # of config.mix.cutmix; EfficientNetV2: 0
    magnitude_from: NonNegative | None = None  # of the RandAugment of config.augment.policy; EfficientNetV2: 5
    dropout_from: ZeroToBelowOne | None = None  # of config.model.dropout; EfficientNetV2's paper: 0.1, its code: None


@dataclass(frozen=True, kw_only=True)
class SizeStage:
    """A stage of a run that resizes progressively."""

    start: int  # steps done before its first
    height: int  # pixels that are trained at
    width: int
    progress: float  # 0 in the first stage … 1 in the last


def plan_sizes(
    spec: ProgressiveConfig, height: int, width: int, steps: int, steps_per_epoch: float
) -> tuple[SizeStage, ...]:
    """Returns the stages of a run at `height` × `width`; one where it does not resize.

    Raises:
        UserError: for sizes that are not those of the run, or stages without a step.
    """
    if not spec.sizes:
        return (SizeStage(start=0, height=height, width=width, progress=1.0),)
    count = len(spec.sizes)
    if spec.sizes[-1] != height:
        raise UserError(
            f"config.progressive.sizes must end with the size that is trained at, {height} (config.data.image_size), "
            f"found {_listed(spec.sizes)}"
        )
    if max(spec.sizes) > height:
        raise UserError(
            f"config.progressive.sizes {_listed(spec.sizes)} has images of {max(spec.sizes)} pixels, larger than the "
            f"{height} of config.data.image_size: leave them out, or raise that one and end with it"
        )
    starts = _starts(spec, steps, steps_per_epoch)
    return tuple(
        SizeStage(
            start=start, height=size, width=max(1, round(size * width / height)), progress=number / max(count - 1, 1)
        )
        for number, (start, size) in enumerate(zip(starts, spec.sizes, strict=True))
    )


def _starts(spec: ProgressiveConfig, steps: int, steps_per_epoch: float) -> list[int]:
    count = len(spec.sizes)
    if not spec.until_epochs:
        if count > steps:
            raise UserError(
                f"config.progressive.sizes has {count} stages, and the run {steps} "
                f"{'step' if steps == 1 else 'steps'}: take fewer, or train for longer"
            )
        return [number * steps // count for number in range(count)]
    starts = [0, *(round(epochs * steps_per_epoch) for epochs in spec.until_epochs)]
    if any(later <= earlier for earlier, later in pairwise(starts)):
        raise UserError(
            f"config.progressive.until_epochs must be rising numbers above 0, at least a step apart, found "
            f"{_listed(spec.until_epochs)}, which are the steps {_listed(starts[1:])}"
        )
    return starts


def _listed(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


def refuse_contradictions(spec: ProgressiveConfig) -> None:
    """Refuses sizes and breakpoints that do not belong together, whatever the data.

    Raises:
        UserError: with the keys and what was found.
    """
    if any(isinstance(size, bool) or size < 1 for size in spec.sizes):
        raise UserError(f"config.progressive.sizes must be pixels, at least 1, found {_listed(spec.sizes)}")
    if spec.until_epochs and len(spec.until_epochs) != len(spec.sizes) - 1:
        raise UserError(
            f"config.progressive.until_epochs says when each stage but the last ends, one less than "
            f"config.progressive.sizes has: found {len(spec.until_epochs)} for {len(spec.sizes)} sizes"
        )


def strength(first: float | None, last: float, progress: float) -> float:
    """Returns what a strength is at `progress` 0…1 of a run's stages; without a first one it is constant."""
    return last if first is None else first + (last - first) * progress
