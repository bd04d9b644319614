"""Models by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from jaxnets.errors import UserError, nearest
from jaxnets.models import airbench, convnext, efficientnet, mlp, resnet, vit
from jaxnets.models.family import Entry, Family
from jaxnets.models.quantised.network import QUANTISED, quantised
from jaxnets.preprocess import Preprocess

FAMILIES: tuple[Family, ...] = (
    resnet.FAMILY,
    efficientnet.FAMILY,
    convnext.FAMILY,
    vit.FAMILY,
    airbench.FAMILY,
    mlp.FAMILY,
)
MODELS: Mapping[str, Entry] = {name: entry for family in FAMILIES for name, entry in family.entries.items()}


def list_models() -> list[str]:
    """Returns the names that `create_model` knows."""
    return list(MODELS)


def find_model(name: str) -> Entry:
    """Returns the entry of a registered model.

    Raises:
        UserError: for an unknown name.
    """
    if name not in MODELS:
        raise UserError(f"there is no model {name!r}{nearest(name, MODELS)}; known are {', '.join(MODELS)}")
    return MODELS[name]


def find_family(name: str) -> Family:
    """Returns the family of a registered model.

    Raises:
        UserError: for an unknown name.
    """
    entry = find_model(name)
    return next(family for family in FAMILIES if family.entries.get(name) is entry)


def family_of(model: nn.Module) -> Family:
    """Returns the family that a network belongs to.

    Raises:
        ValueError: if it belongs to none.
    """
    for family in FAMILIES:
        if isinstance(model, family.network):
            return family
    raise ValueError(f"{type(model).__name__} is the network of no family in jaxnets.models.registry.FAMILIES")


def create_model(name: str, **fields: Any) -> nn.Module:
    """Builds the Linen module of a registered model; `fields` replace its own, for instance `num_classes=10`.

    With `quantised=True` it computes as it would in 8 bits (`jaxnets.models.quantised`).

    Raises:
        UserError: for an unknown name or a field that the model does not have.
    """
    entry, known = find_model(name), field_names(name)
    for field in fields:
        if field not in known:
            raise UserError(f"{name} has no field {field!r}{nearest(field, known)}; it has {', '.join(known)}")
    # From JSON, tuples come as lists.
    given = {field: tuple(value) if isinstance(value, list) else value for field, value in fields.items()}
    made = {"preprocess": entry.preprocess, **entry.fields, **given}
    if made.get("single_output") and made["num_classes"] != 2:
        raise UserError(
            f"single_output (config.model.single_output) is for two classes, and there are {made['num_classes']}: "
            f"leave it out"
        )
    network = find_family(name).network
    return (quantised(network) if made.pop(QUANTISED, False) else network)(**made)


def field_names(name: str) -> list[str]:
    """Returns the fields that `create_model` takes for a registered model."""
    network = find_family(name).network
    return [*(field.name for field in dataclasses.fields(network) if field.name not in ("parent", "name")), QUANTISED]


def preprocess_of(model: nn.Module) -> Preprocess:
    """Returns what an image goes through before `model`, as its family or its weights were evaluated.

    Raises:
        UserError: if nothing is known of it, as for a CIFAR network that was not trained yet.
    """
    preprocess = getattr(model, "preprocess", None)
    if preprocess is None:
        raise UserError(
            f"this {type(model).__name__} has no preprocessing of its own: build it with create_model(name, "
            f"preprocess=jaxnets.Preprocess(...)), or open a run with jaxnets.load"
        )
    return preprocess


def usual_size(model: nn.Module) -> tuple[int, int]:
    """Returns height and width of images that a network takes: those that it is for, where that is known."""
    preprocess: Preprocess | None = getattr(model, "preprocess", None)
    return (64, 64) if preprocess is None else (preprocess.height, preprocess.width)
