"""timm's layout as safetensors, so that a model trained here opens there."""

from typing import Any

import numpy as np
from jaxtyping import Float32

from jaxnets.classifier import Classifier
from jaxnets.errors import UserError
from jaxnets.models.registry import family_of
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
    model: Any = classifier.model
    layout = next(layout for layout in family_of(model).layouts if layout.name == "timm")
    return to_arrays(classifier.variables, layout, model, classifier.preprocess.channels)


def timm_name(classifier: Classifier) -> str:
    """Returns the name under which timm pads and normalises as this model does.

    Raises:
        UserError: if there is none.
    """
    model: Any = classifier.model
    name = classifier.name.removeprefix("tf_")
    if not hasattr(model, "padding"):
        return name
    convention = (model.padding, model.norm_epsilon)
    known = {("torch", 1e-5): name, ("same", 1e-3): f"tf_{name}"}
    if convention not in known:
        raise UserError(
            f"timm has no {name} with {model.padding} padding and an epsilon of {model.norm_epsilon:g}: give timm's "
            f"own model bn_eps={model.norm_epsilon:g} by hand, with weights from jaxnets.export.timm_layout.timm_arrays"
        )
    return known[convention]
