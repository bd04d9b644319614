"""What a Hub repository's own configuration says of its model, its classes and its images.

timm and transformers write different files; both are read here without either being installed.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from jaxnets.answer import read_thresholds
from jaxnets.errors import UserError
from jaxnets.models.family import InTimm
from jaxnets.models.forward import Activation
from jaxnets.models.registry import FAMILIES, MODELS, field_names, find_family, find_model
from jaxnets.preprocess import IMAGENET_MEAN, IMAGENET_STD, Fitting, Preprocess
from jaxnets.pretrained.imagenet import class_names
from jaxnets.trust.refusal import Refusal, read_refusal, read_temperature

_log = logging.getLogger(__name__)


def describes_a_model(config: Mapping[str, Any]) -> bool:
    """Tells a config.json of timm's or transformers' from another program's, a training run's for instance."""
    return not {"architecture", "architectures", "model_type", "pretrained_cfg"}.isdisjoint(config)


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """The network that a config.json describes."""

    name: str  # of the model that it is, but for its fields
    fields: Mapping[str, Any] = field(default_factory=dict)


def network(config: Mapping[str, Any]) -> Recognised | None:
    """Returns the network that a config.json describes; None where it describes no model.

    Raises:
        UserError: if it is none that can be built here, by the key that makes it another one.
    """
    if not describes_a_model(config):
        return None
    with _reading("network"):
        if config.get("quantization_config"):
            raise UserError("has a quantization_config, and only whole weights are read")
        if "architecture" in config:
            return _timm_network(str(config["architecture"]), config)
        kind = str(config.get("model_type"))
        read = {kind: reader for family in FAMILIES for kind, reader in family.transformers.items()}
        if kind not in read:
            known = ", ".join(sorted(read))
            raise UserError(f"is that of a model of the type {kind}; known are {known} and timm's architectures")
        found = read[kind](config)
        for key, (value, usual) in found.differences.items():
            raise UserError(f"has {key} {value!r}, and the network here has {usual!r}")
        if found.name is None:
            raise UserError(f"is that of a {kind} of other depths or widths than the models here have")
        return Recognised(name=found.name, fields=found.fields)


def activation(config: Mapping[str, Any]) -> Activation | None:
    """Returns what makes probabilities of a model's outputs; None for a regression, whose outputs are none.

    Raises:
        UserError: if it is another kind of problem.
    """
    known = {None: "softmax", **_PROBLEMS}
    problem = config.get("problem_type")
    if problem not in known:
        raise UserError(f"has the problem_type {problem!r}; expected one of {', '.join(map(str, known))}")
    return known[problem]


def several_labels(config: Mapping[str, Any]) -> bool:
    """Tells whether an image may have several labels: our own exports say it, of others their problem does."""
    return bool(config.get("several_labels", config.get("problem_type") == "multi_label_classification"))


def thresholds(config: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Returns the probabilities above which labels are said, which our own exports name.

    Raises:
        UserError: if they are not one for each label.
    """
    found = config.get("thresholds")
    return None if found is None else read_thresholds(found, int(config.get("num_classes", 0)))


def temperature(config: Mapping[str, Any]) -> float | None:
    """Returns what divides the logits before they become probabilities, which our own exports name.

    Raises:
        UserError: if it is no number above 0.
    """
    return read_temperature(config.get("temperature"))


def refusal(config: Mapping[str, Any]) -> Refusal | None:
    """Returns the bounds beyond which the answer is "none of these", which our own exports name.

    That of the distance needs a run's training images, which no such folder has.

    Raises:
        UserError: if they are no numbers.
    """
    found = read_refusal(config.get("refusal"))
    return None if found is None else replace(found, distance=None)


_PROBLEMS: dict[str | None, Activation | None] = {
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
    "regression": None,
}


def labels(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Returns the names of the classes in their order; ImageNet's where there are 1,000 and they have no names."""
    with _reading("labels"):
        pretrained = config.get("pretrained_cfg") or config
        for key in ("id2label", "label_names", "labels"):
            named = config.get(key) or pretrained.get(key)
            if named:
                described = config.get("label_descriptions") or pretrained.get("label_descriptions") or {}
                return _in_order(named, described)
        return class_names() if config.get("num_classes", pretrained.get("num_classes")) == 1000 else None


def preprocess(config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Preprocess | None:
    """Returns what a repository says about images; None, with a warning, where `Preprocess` cannot express it.

    Of timm's it is what `timm.data.resolve_data_config` gives a user: the size and crop of the training, not the
    larger ones that some weights are tested at. transformers' crop may lie one pixel further to the top and the left.
    """
    kind = str(preprocessor.get("image_processor_type") or preprocessor.get("feature_extractor_type") or "")
    with _reading("preprocessing"):
        if "architecture" in config:
            found, kind = _of_timm(config), "timm's"
        elif kind.startswith("ConvNext"):
            found = _of_convnext(preprocessor)
        elif kind.startswith("EfficientNet"):
            found = _of_efficientnet(preprocessor)
        elif kind.startswith("ViT"):
            found = _of_vit(preprocessor)
        else:
            found = None
    if found is None and kind:
        _log.warning("the repository's own preprocessing (%s) has no counterpart here: the model's usual is used", kind)
    return found


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise UserError(
            f"does not say its {what} as timm or transformers do ({error!r}): move the weights to a folder of their "
            "own, and give their file and the model's name (resnet50@FILE)"
        ) from error


# timm's arguments that change no answer: the weights have their own classes and channels, and the rest is for training
# or for other programs.
_IRRELEVANT = {
    "in_chans", "num_classes", "drop_rate", "drop_path_rate", "drop_block_rate", "drop_connect_rate", "zero_init_last",
    "pretrained", "checkpoint_path", "exportable", "scriptable", "no_jit",
}  # fmt: skip
_USUAL = {"global_pool": ("avg", "fast", "fastavg"), "output_stride": (32,), "features_only": (False,)}
_TIMM_FIELDS: Mapping[str, Callable[[Any], dict[str, Any]]] = {  # those that are fields of the networks here
    "bn_eps": lambda value: {"norm_epsilon": float(value)},
    "bn_momentum": lambda value: {"norm_decay": 1 - float(value)},  # the weight of the new value, there
    "pad_type": lambda value: {"padding": {"": "torch", "same": "same"}[value]},
    "act_layer": lambda value: {"activation": {"swish": "silu"}.get(value, value)},
    "norm_eps": lambda value: {"layer_norm_epsilon": float(value)},
    "conv_mlp": lambda value: {"conv_mlp": bool(value)},
}


def _timm_network(name: str, config: Mapping[str, Any]) -> Recognised:
    arguments = {"global_pool": config.get("global_pool"), **(config.get("model_args") or {})}
    timm = find_family(name).timm if name in MODELS else InTimm()
    irrelevant, usual = _IRRELEVANT | timm.irrelevant, {**_USUAL, **timm.usual}
    fields: dict[str, Any] = {}
    for key, value in arguments.items():
        if value is None or key in irrelevant or value in usual.get(key, ()):
            continue
        if key in timm.fields:
            fields |= timm.fields[key](find_model(name).fields, value)
            continue
        changed = _TIMM_FIELDS[key](value) if key in _TIMM_FIELDS else {}
        if not changed or not changed.keys() <= set(field_names(name)):
            raise UserError(f"builds its {name} with {key} {value!r}, which is another network than the {name} here")
        fields |= changed
    return Recognised(name=name, fields=fields)


def _in_order(named: Mapping[str, str] | Sequence[str], described: Mapping[str, str]) -> tuple[str, ...]:
    names = {int(index): name for index, name in (named.items() if isinstance(named, Mapping) else enumerate(named))}
    if sorted(names) != list(range(len(names))):
        raise ValueError(f"the classes are not numbered 0 to {len(names) - 1}")
    return tuple(str(described.get(names[index], names[index])) for index in range(len(names)))


def _of_timm(config: Mapping[str, Any]) -> Preprocess | None:
    # Older configurations have one level only.
    found = config.get("pretrained_cfg") or config
    channels, height, width = map(int, found.get("input_size") or (3, 224, 224))
    # timm takes any other mode for "center", and does not say so.
    mode = found.get("crop_mode") or "center"
    interpolation = found.get("interpolation") or "bicubic"
    mean, std = found.get("mean") or IMAGENET_MEAN, found.get("std") or IMAGENET_STD
    if len(mean) != len(std):
        raise ValueError(f"{len(mean)} means, {len(std)} deviations")
    if interpolation not in _RESAMPLE.values() or channels not in (1, 3):
        return None
    return Preprocess(
        height=height,
        width=width,
        channels=len(mean),
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        crop_fraction=float(found.get("crop_pct") or 0.875),
        interpolation=interpolation,
        fitting=_FITTING.get(mode, "crop"),
    ).for_channels(channels)


_FITTING: Mapping[str, Fitting] = {"border": "pad", "squash": "squeeze"}  # timm's other crop modes
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def _of_convnext(processor: Mapping[str, Any]) -> Preprocess | None:
    """transformers' ConvNextImageProcessor, which its ResNets use: from 384 pixels on nothing is cropped."""
    size = processor.get("size", 384)
    side = int(size["shortest_edge"] if isinstance(size, Mapping) else size)
    mean, std = _normalisation(processor)
    interpolation = _RESAMPLE.get(processor.get("resample", 3))
    if not processor.get("do_resize", True) or interpolation is None:
        return None
    return Preprocess(
        height=side,
        width=side,
        channels=3,
        mean=mean,
        std=std,
        crop_fraction=float(processor.get("crop_pct") or 224 / 256) if side < 384 else 1.0,
        interpolation=interpolation,
        fitting="crop" if side < 384 else "squeeze",
    )


def _of_efficientnet(processor: Mapping[str, Any]) -> Preprocess | None:
    """transformers' EfficientNetImageProcessor, which squeezes the image and may divide by the deviation twice."""
    height, width = _sides(processor.get("size", 346))
    cropped = _sides(processor.get("crop_size", 289)) if processor.get("do_center_crop", False) else (height, width)
    mean, std = _normalisation(processor, twice=processor.get("include_top", True))
    interpolation = _RESAMPLE.get(processor.get("resample", 3))
    if not processor.get("do_resize", True) or interpolation is None:
        return None
    found = Preprocess(
        height=cropped[0],
        width=cropped[1],
        channels=3,
        mean=mean,
        std=std,
        crop_fraction=cropped[0] / height,
        interpolation=interpolation,
        fitting="squeeze",
    )
    # A crop that is larger than the image is padded; one that leaves more above than beside has no fraction.
    return found if found.crop_fraction <= 1 and found.resized(height, width) == (height, width) else None


def _of_vit(processor: Mapping[str, Any]) -> Preprocess | None:
    """transformers' ViTImageProcessor, which squeezes the image and crops nothing."""
    height, width = _sides(processor.get("size", 224))
    mean, std = _normalisation(processor)
    interpolation = _RESAMPLE.get(processor.get("resample", 2))
    if not processor.get("do_resize", True) or interpolation is None:
        return None
    return Preprocess(
        height=height,
        width=width,
        channels=3,
        mean=mean,
        std=std,
        crop_fraction=1.0,
        interpolation=interpolation,
        fitting="squeeze",
    )


def _sides(size: Mapping[str, int] | int) -> tuple[int, int]:
    return (int(size["height"]), int(size["width"])) if isinstance(size, Mapping) else (int(size), int(size))


def _normalisation(processor: Mapping[str, Any], *, twice: bool = False) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and std, of pixels scaled to 0…1, that equal transformers' steps.

    They are p · 255 · factor − offset, then minus the mean and over the deviation, and over the deviation once more.
    """
    factor = 255 * processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 255.0
    offset = 1.0 if processor.get("do_rescale", True) and processor.get("rescale_offset", False) else 0.0
    mean, std = (_triple(processor.get(key, 0.5)) for key in ("image_mean", "image_std"))
    once = processor.get("do_normalize", True)
    return (
        tuple((offset + (m if once else 0.0)) / factor for m in mean),
        tuple((s if once else 1.0) * (s if twice else 1.0) / factor for s in std),
    )


def _triple(value: float | Sequence[float]) -> tuple[float, ...]:
    values = tuple(map(float, value)) if isinstance(value, Sequence) else (float(value),) * 3
    if len(values) != 3:
        raise ValueError(f"three channels are expected, found {len(values)}")
    return values
