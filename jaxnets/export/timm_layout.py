"""timm's layout: weights as safetensors under its keys, and the config.json that makes a folder one of its models."""

import json
import math
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from jaxnets.classifier import Classifier
from jaxnets.engine.onnx_file import write_bytes
from jaxnets.errors import UserError
from jaxnets.export.check import is_quantised
from jaxnets.models.conventions import TENSORFLOW, TORCH
from jaxnets.models.family import TRAINING_FIELDS, Layout
from jaxnets.models.registry import MODELS, family_of, find_family, find_model
from jaxnets.preprocess import Preprocess
from jaxnets.pretrained.convert import adapt, to_arrays

WEIGHTS = "model.safetensors"  # what timm looks for first in a folder
CONFIG = "config.json"


class NotInTimm(UserError):
    """timm has no such network."""


@dataclass(frozen=True)
class Architecture:
    """A network as timm's `create_model(name, **arguments)` makes it."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


def architecture(classifier: Classifier) -> Architecture:
    """Returns `architecture_of` a classifier's network."""
    return architecture_of(classifier.name, classifier.model)


def architecture_of(name: str, model: Any) -> Architecture:
    """Returns timm's name for the network of a registered name, with what makes it pad and normalise alike.

    Raises:
        NotInTimm: if it has none.
    """
    if model.quantised:
        raise NotInTimm("timm's networks do not compute in 8 bits, and this one does")
    own, timm = find_model(name).fields, find_family(name).timm
    defaults = {known.name: known.default for known in fields(model)}
    convention = {"padding", "norm_epsilon"} if "padding" in defaults else set()
    arguments: dict[str, Any] = {}
    for key in sorted(defaults.keys() - {*TRAINING_FIELDS, "parent", "name"} - convention):
        if getattr(model, key) != own.get(key, defaults[key]):
            needed = timm.arguments[key](model) if key in timm.arguments else None
            if needed is None:
                value = "of its own" if key == "layer_widths" else repr(getattr(model, key))
                raise NotInTimm(f"timm's {name} is another network: this one has {key} {value}")
            arguments |= needed
    if convention:
        base = name.removeprefix("tf_")
        usual = {"torch": (base, TORCH.norm_epsilon), "same": (f"tf_{base}", TENSORFLOW.norm_epsilon)}
        called, epsilon = usual[model.padding]
        if _in_timm(called):
            return Architecture(called, {} if model.norm_epsilon == epsilon else {"bn_eps": model.norm_epsilon})
        other = next((candidate for candidate, _ in usual.values() if _in_timm(candidate)), None)
        if other is not None:
            pads = {"torch": "", "same": "same"}[model.padding]
            return Architecture(other, {"pad_type": pads, "bn_eps": model.norm_epsilon})
    if not _in_timm(name):
        raise NotInTimm(f"timm has no {name}")
    return Architecture(name, arguments)


def _in_timm(name: str) -> bool:
    """Tells whether timm has one of our models under this name."""
    return name in MODELS and MODELS[name].timm_name is not None


def export_folder(classifier: Classifier, file: Path) -> tuple[int, str]:
    """Writes the weights, and beside them timm's config.json if timm has the network.

    Returns:
        The weights' bytes, and what was written in words.

    Raises:
        UserError: if something else lies there that would be taken for what belongs to these weights.
    """
    config = file.with_name(CONFIG)
    found: Architecture | None = None
    try:
        found = architecture(classifier)
        said = f"timm's {found.name}, opened there by timm.create_model('local-dir:{file.parent}', pretrained=True)"
    except NotInTimm as error:
        said = f"weights alone, in timm's layout without a {CONFIG}, since {error}"
    check_folder(file, with_config=found is not None)
    content = export_safetensors(classifier, found)
    config.unlink(missing_ok=True)  # what an earlier export said of the weights that lay here
    write_bytes(file, content)
    if found is not None:
        write_bytes(config, timm_config(classifier, found, file.name))
    return len(content), said


def export_safetensors(classifier: Classifier, found: Architecture | None) -> bytes:
    """Returns the weights under timm's keys; metadata name the model, its classes and its preprocessing.

    With timm's `architecture` they say also what `timm.create_model` needs.

    Raises:
        UserError: for a model in 8 bits, which timm's networks are not.
    """
    if is_quantised(classifier):
        raise UserError(
            "the model computes in 8 bits, which timm's networks do not: export it with --format onnx, or the run that "
            "it came from as safetensors"
        )
    from safetensors.numpy import save

    metadata = {
        "model": classifier.name,
        "num_classes": str(len(classifier.labels)),
        "in_chans": str(classifier.preprocess.channels),
        "activation": classifier.activation,
        "labels": json.dumps(classifier.labels, ensure_ascii=False),
        "preprocess": json.dumps(classifier.preprocess.to_json()),
    }
    if found is not None:
        metadata |= {"architecture": found.name, "model_args": json.dumps(found.arguments)}
    return save(timm_arrays(classifier), metadata)


def timm_arrays(classifier: Classifier) -> dict[str, Float32[np.ndarray, "..."]]:
    """Returns the weights under timm's keys; a single output becomes two, of which the first is 0: one a class."""
    model: Any = classifier.model
    two, channels = model.clone(single_output=False), classifier.preprocess.channels
    return to_arrays(adapt(classifier.variables, two, channels), _layout(classifier), two, channels)


def timm_config(classifier: Classifier, found: Architecture, file: str) -> bytes:
    """Returns the config.json beside `file`: network, labels and preprocessing, as timm reads them."""
    seen = classifier.preprocess
    classes, model, module_key = len(classifier.labels), classifier.model, _layout(classifier).module_key
    family = family_of(model)
    structure, timm = family.structure(model), family.timm
    config = {
        "architecture": found.name,
        "num_classes": classes,
        "num_features": int(np.shape(classifier.variables["params"][structure.head]["kernel"])[0]),
        "global_pool": timm.pooling(model),
        "label_names": list(classifier.labels),
        **({"model_args": found.arguments} if found.arguments else {}),
        # No key of timm's, but transformers' for the same: its own heads have logits for several labels.
        **({"problem_type": "multi_label_classification"} if classifier.activation == "sigmoid" else {}),
        # Ours alone: whether an image has all labels above their thresholds, or the most probable one.
        "several_labels": classifier.several_labels,
        **({"thresholds": list(classifier.thresholds)} if classifier.thresholds else {}),
        **({"temperature": classifier.temperature} if classifier.temperature else {}),
        **({"refusal": _refusal(classifier)} if classifier.refusal else {}),
        "pretrained_cfg": {
            "input_size": [seen.channels, seen.height, seen.width],
            "fixed_input_size": timm.one_size,
            "interpolation": seen.interpolation,
            "crop_pct": _crop_share(seen),
            "crop_mode": _CROP_MODES[seen.fitting],
            "mean": list(seen.mean),
            "std": list(seen.std),
            "num_classes": classes,
            "first_conv": module_key(model, structure.stem[:1]),
            "classifier": module_key(model, (structure.head,)),
        },
        "written_by": "jaxnets",
        "weights": file,
    }
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def _refusal(classifier: Classifier) -> dict[str, Any] | None:
    """Returns the bounds that need nothing but logits: the training images that distances are from stay in the run."""
    return None if classifier.refusal is None else asdict(replace(classifier.refusal, distance=None))


def check_folder(file: Path, *, with_config: bool) -> None:
    """Refuses to write weights where a config.json of something else would be taken for theirs, or theirs for others'.

    Raises:
        UserError: that says why.
    """
    config = file.with_name(CONFIG)
    if config.exists() and not _is_ours(config, file.name):
        raise UserError(f"{config} belongs to something else, and would be taken for that of {file.name}: {_ELSEWHERE}")
    others = sorted(other.name for other in file.parent.glob("*.safetensors") if other.name != file.name)
    if with_config and others:
        raise UserError(
            f"{file.parent} holds other weights ({', '.join(others[:3])}), which its {CONFIG} would be taken for: "
            f"{_ELSEWHERE}"
        )


_CROP_MODES = {"crop": "center", "pad": "border", "squeeze": "squash"}  # timm's words for how an image is fitted
_ELSEWHERE = "give a folder of its own with --out"


def _is_ours(config: Path, file: str) -> bool:
    try:
        written = json.loads(config.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(written, dict) and (written.get("written_by"), written.get("weights")) == ("jaxnets", file)


def _layout(classifier: Classifier) -> Layout:
    layouts = [layout for layout in family_of(classifier.model).layouts if layout.name == "timm"]
    if not layouts:
        raise NotInTimm(f"timm has nothing like {classifier.name}")
    return layouts[0]


def _crop_share(seen: Preprocess) -> float:
    """Returns the crop fraction from which timm, which rounds down, comes to the same size before the crop.

    A crop of 40 from 53 is 40 / 53, and 40 / (40 / 53) is a little less than 53.
    """
    share = seen.crop_fraction
    sides = [(side, math.floor(side / share + 1e-6)) for side in (seen.height, seen.width)]
    for side, resized in sides:
        if math.floor(side / share) < resized:
            share = min(share, side / resized)
        while math.floor(side / share) < resized:
            share = math.nextafter(share, 0)
    return share
