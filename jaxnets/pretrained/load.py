"""A model with weights from elsewhere: `jaxnets.load_pretrained`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flax import linen as nn

from jaxnets.errors import UserError
from jaxnets.models.family import Layout
from jaxnets.models.registry import create_model, find_family, find_model
from jaxnets.preprocess import Preprocess
from jaxnets.pretrained.convert import Variables, adapt, sizes, to_variables
from jaxnets.pretrained.layouts import recognise
from jaxnets.pretrained.sources import Source, known_weights, open_source


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


def load_pretrained(
    name: str,
    source: str | Path | None = None,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    **fields: Any,
) -> tuple[nn.Module, Variables]:
    """Builds a registered model with weights from elsewhere; `preprocess_of(model)` is how they want their images.

    Padding, epsilon and preprocessing follow from the name and the layout that the file's keys are in (timm,
    torchvision, transformers, efficientnet-pytorch).

    Args:
        name: one of `list_models()`.
        source: a `.safetensors`, `.pth`, `.pt`, `.bin` or `.npz` file, or `hf:OWNER/REPO` on the Hugging Face Hub; None
            for the weights that are known for the name. Files are read without torch and nothing in them is executed.
        num_classes: another number than the weights have gives a new head, drawn as a new model's is.
        in_channels: another number than the weights have folds or repeats the stem's kernel, so that the response to
            grey stays the same.
        fields: of the model, for instance `dropout=0.3`.

    Returns:
        The model, and its variables as float32 arrays.

    Raises:
        UserError: if the weights cannot be read, or do not fit the model: every key is consumed, or named.
    """
    found = open_pretrained(name, source)
    channels = in_channels or found.channels
    preprocess = found.preprocess and _for_channels(found.preprocess, channels)
    own = {"preprocess": preprocess, **found.fields, "num_classes": num_classes or found.fields["num_classes"]}
    model = create_model(name, **{**own, **fields})
    return model, adapt(found.variables, model, channels)


def open_pretrained(name: str | None, source: str | Path | None = None) -> Pretrained:
    """Reads weights as they are; without a name, the source has to tell it.

    Raises:
        UserError: as load_pretrained.
    """
    if name is not None:
        find_model(name)
    opened = open_source(known_weights(name) if source is None and name is not None else str(source))
    name = _name(name, opened)
    layout = _layout(name, opened)
    fields = layout.fields(name)
    classes, channels = sizes(opened.arrays, layout, create_model(name, **fields), opened.description)
    fields["num_classes"] = classes
    preprocess = opened.preprocess or layout.preprocess(name) or find_model(name).preprocess
    if preprocess is not None:
        preprocess = _for_channels(preprocess, channels)
    model = create_model(name, preprocess=preprocess, **fields)
    return Pretrained(
        name=name,
        model=model,
        fields=fields,
        variables=to_variables(opened.arrays, layout, model, channels, opened.description),
        channels=channels,
        labels=opened.labels if opened.labels and len(opened.labels) == classes else _labels(classes),
        preprocess=preprocess,
    )


def _name(name: str | None, source: Source) -> str:
    if name is None:
        if source.model is None:
            raise UserError(f"{source.description} does not say which model it is: name it, with load_pretrained")
        return source.model
    # tf_ says how a model pads: with weights, their layout says it.
    if source.model is not None and source.model.removeprefix("tf_") != name.removeprefix("tf_"):
        raise UserError(f"{source.description} holds a {source.model}, not a {name}: load it under its own name")
    return name


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


def _labels(classes: int) -> tuple[str, ...]:
    if classes != 1000:
        return tuple(f"class {i}" for i in range(classes))
    from jaxnets.pretrained import imagenet

    return imagenet.class_names()
