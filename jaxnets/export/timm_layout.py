"""timm's layout as safetensors, so that a model trained here opens there."""

from typing import Any

import numpy as np
from jaxtyping import Float32

from jaxnets.classifier import Classifier
from jaxnets.errors import UserError
from jaxnets.models.family import TRAINING_FIELDS
from jaxnets.models.registry import create_model, family_of
from jaxnets.pretrained.convert import to_arrays


def export_safetensors(classifier: Classifier) -> bytes:
    """Returns the weights under timm's keys; metadata name the model as timm does, and its number of classes.

    `timm.create_model(name, num_classes=…, in_chans=…).load_state_dict(safetensors.torch.load_file(path))` opens it.
    """
    from safetensors.numpy import save

    metadata = {
        "architecture": timm_name(classifier),
        "num_classes": str(len(classifier.labels)),
        "in_chans": str(classifier.preprocess.channels),
    }
    return save(timm_arrays(classifier), metadata)


def timm_arrays(classifier: Classifier) -> dict[str, Float32[np.ndarray, "..."]]:
    """Returns the weights under timm's keys, for networks of the families that timm has too.

    Raises:
        UserError: if timm has no such family.
    """
    model: Any = classifier.model
    layouts = [layout for layout in family_of(model).layouts if layout.name == "timm"]
    if not layouts:
        raise UserError(f"timm has nothing like {classifier.name}: {_OTHERWISE}")
    return to_arrays(classifier.variables, layouts[0], model, classifier.preprocess.channels)


def timm_name(classifier: Classifier) -> str:
    """Returns the name under which timm has the network that this model is, its padding and epsilon included.

    Raises:
        UserError: if there is none, with where the nearest differs.
    """
    model: Any = classifier.model
    entries = family_of(model).entries
    # Its own name first, then those of the same network by other conventions.
    own = classifier.name.removeprefix("tf_")
    names = sorted(entries, key=lambda name: (name != classifier.name, name.removeprefix("tf_") != own))
    known = [(name, timm) for name in names if (timm := entries[name].timm_name) is not None]
    for name, timm in known:
        if not _differences(model, name):
            return timm
    alike = [(name, timm) for name, timm in known if name.removeprefix("tf_") == own]
    if not alike:
        raise UserError(f"timm has no {classifier.name}: {_OTHERWISE}")
    name, timm = alike[0]
    differing = ", ".join(
        field if isinstance(found, tuple) else f"{field} {found!r} in place of {usual!r}"
        for field, found, usual in _differences(model, name)
    )
    raise UserError(f"timm has no network like this one; its {timm} differs from it in {differing}: {_OTHERWISE}")


_OTHERWISE = (
    "export it with --format onnx or stablehlo, or take the arrays from jaxnets.export.timm_layout.timm_arrays for a "
    "network of your own in PyTorch"
)


def _differences(model: Any, name: str) -> list[tuple[str, Any, Any]]:
    """Returns where a model computes something else than the registered one: (field, found, usual)."""
    usual = create_model(name)
    fields = [field for field in type(model).__dataclass_fields__ if field not in ("parent", "name")]
    return [
        (field, getattr(model, field), getattr(usual, field))
        for field in fields
        if field not in TRAINING_FIELDS and getattr(model, field) != getattr(usual, field)
    ]
