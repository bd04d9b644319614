"""What no augmentation can be, and which keys of one do nothing."""

import math
from dataclasses import fields, is_dataclass

from jaxnets.errors import UserError
from jaxnets.preprocess import Preprocess
from jaxnets.recipe.augment.table import AugmentConfig


def refuse_contradictions(spec: AugmentConfig, channels: int | None) -> None:
    """Refuses what a config alone shows to be wrong.

    Args:
        spec: each op's parameters.
        channels: of the images; None if only the data says how many.

    Raises:
        UserError: for ranges that are none, keys that contradict each other, or ops on colours of grey images.
    """
    area, aspect = spec.erasing.area, spec.erasing.aspect
    if not (len(area) == 2 and 0 < area[0] <= area[1] < 1):
        raise UserError(
            f"config.augment.erasing.area must be two shares of the image, the least first, above 0 and below 1 "
            f"(0.02,0.33), found {area}"
        )
    if not (len(aspect) == 2 and 0 < aspect[0] <= aspect[1] < math.inf):
        raise UserError(
            f"config.augment.erasing.aspect must be two numbers, height / width, the least first and above 0 "
            f"(0.3,3.3), found {aspect}"
        )
    if spec.cutout.side and spec.cutout.share:
        raise UserError(
            f"config.augment.cutout.side {spec.cutout.side} and config.augment.cutout.share {spec.cutout.share:g} both "
            f"say how large the square is: leave one of them out"
        )
    if channels is not None:
        refuse_colours_of_grey(spec, channels)


def refuse_misfits(spec: AugmentConfig, seen: Preprocess) -> None:
    """Refuses ops that images of this size and these channels cannot have.

    Raises:
        UserError: if there is one.
    """
    refuse_colours_of_grey(spec, seen.channels)
    side, shorter = spec.cutout.side, min(seen.height, seen.width)
    if side >= shorter:
        raise UserError(
            f"config.augment.cutout.side {side} would leave nothing of images of {shorter} pixels: give less than "
            f"{shorter}, half of it as a rule"
        )


def refuse_colours_of_grey(spec: AugmentConfig, channels: int) -> None:
    """Refuses ops on colours where images have none.

    Raises:
        UserError: if there is one.
    """
    jitter = spec.color_jitter
    needing = {
        "three_augment.probability": spec.three_augment.probability,
        "color_jitter.saturation": jitter.saturation * jitter.probability,
        "color_jitter.hue": jitter.hue * jitter.probability,
        "grey.probability": spec.grey.probability,
    }
    asked = [f"config.augment.{key}" for key, value in needing.items() if value]
    if channels == 1 and asked:
        raise UserError(
            f"{' and '.join(asked)} {'is' if len(asked) == 1 else 'are'} for images with colours, and these are grey: "
            f"leave {'it' if len(asked) == 1 else 'them'} out, or set config.data.channels to 3 if they are not"
        )


def without_effect(spec: AugmentConfig) -> list[tuple[str, bool, str]]:
    """Returns rules for `jaxnets.config.without_effect`: what begins so, whether it has an effect, why not."""
    jitter, cutout, none = spec.color_jitter, spec.cutout, "its probability is 0"
    policy = spec.policy.name
    policies = [group.name for group in fields(spec.policy) if is_dataclass(getattr(spec.policy, group.name))]
    jitters = any((jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue))
    return [
        ("augment.random_resized_crop.", spec.random_resized_crop.area is not None, "its area is not set"),
        ("augment.pad_and_crop.", spec.pad_and_crop.padding > 0, "its padding is 0"),
        *((f"augment.policy.{name}.", policy == name, f"augment.policy.name is {policy}") for name in policies),
        ("augment.augmix.", spec.augmix.probability > 0, none),
        ("augment.posterize.", spec.posterize.probability > 0, none),
        ("augment.color_jitter.probability", jitters, "brightness, contrast, saturation and hue are all 0"),
        *(
            (f"augment.color_jitter.{key}", jitter.probability > 0, none)
            for key in ("brightness", "contrast", "saturation", "hue")
        ),
        ("augment.erasing.", spec.erasing.probability > 0, none),
        ("augment.cutout.", bool(cutout.side or cutout.share), "its side and its share are 0"),
        *((f"augment.cutout.{key}", cutout.probability > 0, none) for key in ("side", "share", "whole", "fill")),
    ]
