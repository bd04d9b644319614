"""A model with weights from elsewhere: `jaxnets.load_pretrained`."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flax import linen as nn

from jaxnets.errors import UserError
from jaxnets.models.family import Layout
from jaxnets.models.forward import Activation
from jaxnets.models.registry import create_model, find_family, find_model
from jaxnets.preprocess import Preprocess
from jaxnets.pretrained.convert import Variables, adapt, sizes, to_variables
from jaxnets.pretrained.layouts import MARKS, recognise
from jaxnets.pretrained.portable import Portable
from jaxnets.pretrained.sources import Source, open_source
from jaxnets.pretrained.state_dict import Weights, without_prefix
from jaxnets.run.directory import ModelCard
from jaxnets.run.resolve import ModelSource, known, resolve
from jaxnets.trust.outliers import Spread
from jaxnets.trust.refusal import Refusal

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """What weights from elsewhere make of a model."""

    name: str
    model: nn.Module
    fields: dict[str, Any]  # of the model, beside those that its name gives it; JSON values
    variables: Variables  # float32 arrays on the host
    channels: int  # of its images
    labels: tuple[str, ...]
    preprocess: Preprocess | None
    activation: Activation | None  # that turns logits into probabilities; None: they have none
    several_labels: bool  # whether an image may have several
    thresholds: tuple[float, ...] | None  # above which each of several is said; None: one half
    card: ModelCard | None = None  # of a model of ours, all that is known of it
    spread: Spread | None = None  # likewise, of the training images that new ones are compared with
    temperature: float | None = None  # divides the logits before they become probabilities; None: 1
    refusal: Refusal | None = None  # when the answer is "none of these"


def load_pretrained(
    name: str,
    source: str | Path | None = None,
    *,
    weights: Weights = "ema",
    num_classes: int | None = None,
    in_channels: int | None = None,
    **fields: Any,
) -> tuple[nn.Module, Variables]:
    """Builds a registered model with weights from elsewhere; `preprocess_of(model)` is how they want their images.

    Padding, epsilon and preprocessing follow from the name and the layout that the file's keys are in (timm,
    torchvision, transformers, efficientnet-pytorch).

    Args:
        name: one of `list_models()`.
        source: a `.safetensors`, `.pth`, `.pt`, `.bin` or `.npz` file, a folder with the Hub's files, or
            `hf:OWNER/REPO` on the Hugging Face Hub; None for the weights that are known for the name. Files are read
            without torch and nothing in them is executed. A config.json beside the weights says how they want their
            images.
        weights: "ema" for the averaged weights of a checkpoint that holds both, or "raw".
        num_classes: another number than the weights have gives a new head, drawn as a new model's is.
        in_channels: another number than the weights have folds or repeats the stem's kernel, so that the response to
            grey stays the same.
        fields: of the model, for instance `dropout=0.3`.

    Returns:
        The model, and its variables as float32 arrays.

    Raises:
        UserError: if the weights cannot be read, or do not fit the model: every key is consumed, or named.
    """
    found = open_pretrained(name, None if source is None else resolve(source), weights)
    channels = in_channels or found.channels
    preprocess = found.preprocess and _for_channels(found.preprocess, channels)
    own = {"preprocess": preprocess, **found.fields, "num_classes": num_classes or found.fields["num_classes"]}
    if own["num_classes"] != 2:
        own.pop("single_output", None)  # of two classes, and these are others
    model = create_model(name, **{**own, **fields})
    return model, adapt(found.variables, model, channels)


def open_pretrained(name: str | None, source: ModelSource | None = None, weights: Weights = "ema") -> Pretrained:
    """Reads weights as they are; without a name, the source has to tell it, without a source the name.

    Raises:
        UserError: as load_pretrained.
    """
    if name is not None:
        find_model(name)
    source = source or known(str(name))
    opened = open_source(source, weights)
    if opened.portable is not None:
        for asked in filter(None, (name, source.model)):
            if asked != opened.portable.card.name:
                raise _another(replace(opened, model=opened.portable.card.name), asked)
        return _portable(opened.portable)
    arrays = without_prefix(opened.arrays, MARKS, opened.description, weights)
    opened = replace(opened, arrays=arrays)
    if source.model is not None:
        name = _name(name, replace(opened, model=source.model))
    name = _name(name, opened)
    layout = _layout(name, opened)
    opened = replace(opened, arrays={layout.renamed(key): array for key, array in opened.arrays.items()})
    conventions = layout.fields(name)
    if not conventions and opened.model not in (None, name):
        raise _another(opened, name)  # the layout leaves it to the name how the model pads
    fields = {**conventions, **opened.fields}
    seen = {"preprocess": opened.preprocess} if opened.preprocess else {}
    model = create_model(name, **seen, **fields)
    try:
        fields |= layout.fields_of(model, opened.arrays)
    except UserError as error:
        raise UserError(f"{opened.description} {error}") from error
    classes, channels = sizes(opened.arrays, layout, model, opened.description)
    if classes == 1 and len(opened.labels or ()) == 2 and opened.activation == "softmax":
        classes, fields["single_output"] = 2, True  # two classes share its one output
    fields["num_classes"] = classes
    preprocess = opened.preprocess or layout.preprocess(name) or find_model(name).preprocess
    if preprocess is not None:
        preprocess = _for_channels(preprocess, channels)
    if source.kind in ("file", "hub") and opened.preprocess is None:
        _log.info("%s does not say how it wants its images; %s", opened.description, _assumed(name, preprocess))
    if opened.labels and len(opened.labels) != classes:
        _log.warning(
            "%s names %d classes and has %d: they are numbered", opened.description, len(opened.labels), classes
        )
    model = create_model(name, preprocess=preprocess, **fields)
    return Pretrained(
        name=name,
        model=model,
        fields=fields,
        variables=to_variables(opened.arrays, layout, model, channels, opened.description),
        channels=channels,
        labels=opened.labels if opened.labels and len(opened.labels) == classes else _labels(classes),
        preprocess=preprocess,
        # The share of one whole that a single output has is always 1.
        activation="sigmoid" if opened.activation == "softmax" and classes == 1 else opened.activation,
        several_labels=opened.several_labels or classes == 1,  # a single label is there or not
        thresholds=opened.thresholds,
        temperature=opened.temperature,
        refusal=opened.refusal,
    )


def _portable(found: Portable) -> Pretrained:
    card = found.card
    return Pretrained(
        name=card.name,
        model=found.model,
        fields=card.fields,
        variables=found.variables,
        channels=card.preprocess.channels,
        labels=card.class_names,
        preprocess=card.preprocess,
        activation=card.activation,
        several_labels=card.several_labels,
        thresholds=card.thresholds,
        temperature=card.temperature,
        refusal=card.refusal,
        card=card,
        spread=found.spread,
    )


def _name(name: str | None, source: Source) -> str:
    if name is None:
        if source.model is None:
            raise UserError(
                f"{source.description} does not say which model it is: say it, as in resnet50@{source.description}, or "
                "with jaxnets.load_pretrained(NAME, …)"
            )
        return source.model
    # tf_ says how a model pads: with weights, their layout says it.
    if source.model is not None and source.model.removeprefix("tf_") != name.removeprefix("tf_"):
        raise _another(source, name)
    return name


def _another(source: Source, name: str) -> UserError:
    return UserError(f"{source.description} holds a {source.model}, not a {name}: load it under its own name")


def _layout(name: str, source: Source) -> Layout:
    own = find_family(name)
    candidates = recognise(source.arrays, source.description)
    fitting = [layout for family, layout in candidates if family is own]
    if not fitting:
        family, layout = candidates[0]
        raise UserError(
            f"{source.description} holds a network of the kind {family.network.__name__} ({layout.name}'s layout), "
            f"but {name} is of the kind {own.network.__name__}: give the name of its model"
        )
    return fitting[0]


def _for_channels(preprocess: Preprocess, channels: int) -> Preprocess | None:
    """Returns None for images that are neither grey nor RGB: nothing is known of them."""
    return preprocess.for_channels(channels) if channels in (1, 3) else None


def _assumed(name: str, preprocess: Preprocess | None) -> str:
    if preprocess is None:
        return f"nothing is assumed for {name}"
    height, width = preprocess.resized(preprocess.height, preprocess.width)
    mean, std = (" ".join(f"{value:.3g}" for value in values) for values in (preprocess.mean, preprocess.std))
    return (
        f"assumed for {name}: {preprocess.interpolation} to {height}×{width}, of which the central "
        f"{preprocess.height}×{preprocess.width} are seen; mean {mean}, deviation {std}"
    )


def _labels(classes: int) -> tuple[str, ...]:
    if classes != 1000:
        return tuple(f"class {i}" for i in range(classes))
    from jaxnets.pretrained import imagenet

    return imagenet.class_names()
