"""Checkpoints that may be averaged: of one network, of the same classes, images and validation split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxnets.data.fingerprint import changes
from jaxnets.errors import UserError, quoted
from jaxnets.models.family import TRAINING_FIELDS, Variables
from jaxnets.run.checkpoints import choose, read_variables, steps
from jaxnets.run.directory import ModelCard, RunDirectory, open_run

_OF_TRAINING = TRAINING_FIELDS - {"num_classes", "single_output"}  # what the averaged weights do not depend on


@dataclass(frozen=True)
class Ingredient:
    run: RunDirectory
    step: int

    def __str__(self) -> str:
        return f"{self.run.path} step {self.step}"

    def read(self, weights: str) -> Variables:
        """Returns its variables, or with "ema" their average where one was kept.

        Raises:
            UserError: if they cannot be read.
        """
        return read_variables(self.run.checkpoints, self.step, weights)


def gather(runs: Sequence[str], checkpoints: str | None) -> tuple[ModelCard, list[Ingredient]]:
    """Returns what model.json of the first run holds, and the checkpoints of all, each once.

    Args:
        runs: run directories.
        checkpoints: "all", "best", "newest" or a step; None for all of one run, and the best of each of several.

    Raises:
        UserError: if they do not go together, or are fewer than two.
    """
    opened = {str(run.path): run for run in (open_run(path) for path in runs)}
    which = checkpoints or ("all" if len(opened) == 1 else "best")
    cards = {path: run.read_model() for path, run in opened.items()}
    (first, card), *others = cards.items()
    for path, other in others:
        _refuse_other(first, card, path, other)
    found = [
        Ingredient(run, step)
        for run in opened.values()
        for step in (steps(run.checkpoints) if which == "all" else [choose(run.checkpoints, which)])
    ]
    if len(found) < 2:
        raise UserError(
            f"a soup is of two checkpoints at least, and here is {'one' if found else 'none'}: give more runs, or "
            f"train with more of them kept (--config.keep_checkpoints=10) and take them all (--checkpoints all)"
        )
    return card, found


def _refuse_other(first: str, card: ModelCard, path: str, other: ModelCard) -> None:
    if difference := _of_network(card, other) or _of_classes(card, other):
        raise UserError(f"{first} and {path} cannot be averaged: {difference}")
    if differing := changes(card.data, other.data):
        raise UserError(
            f"{first} and {path} cannot be averaged: their data differs ({'; '.join(differing)}), so that one may have "
            f"been trained on what the other has for validation. Train them on the same data with one split: one "
            f"config.seed draws one, and a source that has a validation split of its own gives it to all"
        )
    if difference := _of_images(card, other):
        raise UserError(f"{first} and {path} cannot be averaged: {difference}")


def _of_network(a: ModelCard, b: ModelCard) -> str | None:
    if a.name != b.name:
        return f"they are of two architectures, {a.name} and {b.name}"
    for key in sorted((a.fields.keys() | b.fields.keys()) - _OF_TRAINING - {"num_classes"}):
        if a.fields.get(key) != b.fields.get(key):
            return f"their networks differ in {key}, {_value(a.fields.get(key))} and {_value(b.fields.get(key))}"
    return None


def _of_classes(a: ModelCard, b: ModelCard) -> str | None:
    if a.class_names == b.class_names:
        return None
    pairs = zip(a.class_names, b.class_names, strict=False)
    number = next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(a.class_names), len(b.class_names)))
    names = [quoted(card.class_names[number]) if number < len(card.class_names) else "none" for card in (a, b)]
    order = "are in another order" if sorted(a.class_names) == sorted(b.class_names) else "differ"
    return f"their classes {order}; class {number} is {names[0]} in one and {names[1]} in the other"


def _of_images(a: ModelCard, b: ModelCard) -> str | None:
    if a.several_labels != b.several_labels:
        return "the images of one have several labels, and those of the other have one"
    x, y = a.preprocess.to_json(), b.preprocess.to_json()
    key = next((key for key in x if x[key] != y[key]), None)
    return None if key is None else f"they see images differently: {key} is {_value(x[key])} and {_value(y[key])}"


def _value(value: Any) -> str:
    return "the model's own" if value is None else str(value)
