"""Which examples of a source are in which split of a run, and how many of each class."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int64

from jaxnets.config import Config, DataConfig
from jaxnets.data.sources import Source, Split, classes_by_rarity, labels_of
from jaxnets.data.split import few_of_each, fold_of, hold_out
from jaxnets.errors import UserError
from jaxnets.schema import written

NAMED = 12  # classes that the notes name
_RARE = 10  # times as many images of the commonest class, from which on the rarest is named

Selection = tuple[Split, Int64[np.ndarray, " n"]]  # a split of a source, and the numbers of its examples that count


def divide(data: DataConfig, source: Source, selections: Mapping[str, Selection], seed: int) -> dict[str, Selection]:
    """Returns what becomes of the training examples: train, and validation where it is held out of them."""
    train, chosen = selections["train"]
    divided: dict[str, Selection] = {}
    if data.validation or data.folds is not None:
        key = "validation" if data.validation else "folds"
        if "validation" in selections:
            raise UserError(
                f"{source.description} has a validation split of its own: leave config.data.{key} out to use it"
            )
        groups = train.groups[chosen] if train.groups is not None else None
        if data.folds is None:
            classes = classes_by_rarity(labels_of(train)[chosen])
            kept, held_out = hold_out(train.identities[chosen], classes, data.validation, seed, "validation", groups)
        else:
            held = fold_of(train.identities[chosen], data.folds, seed, groups) == data.fold
            kept, held_out = np.flatnonzero(~held), np.flatnonzero(held)
        divided["validation"] = train, chosen[held_out]
        chosen = chosen[kept]
    if data.shots is not None:
        classes = classes_by_rarity(labels_of(train)[chosen])
        chosen = chosen[few_of_each(train.identities[chosen], classes, data.shots, seed)]
    return {**divided, "train": (train, chosen)}


def count_notes(config: Config, class_names: Sequence[str], selections: Mapping[str, Selection]) -> list[str]:
    """Returns how many images each class has in each split, and a word where one is rare in training."""
    notes = []
    several = labels_of(selections["train"][0]).ndim == 2
    for name, (split, chosen) in selections.items():
        labels = labels_of(split)[chosen]
        if labels.ndim == 2:
            counts = labels.sum(0, dtype=np.int64)
        else:
            counts = np.bincount(labels[labels >= 0], minlength=len(class_names))  # below 0: TFDS's unknown ones
        if len(class_names) <= NAMED:
            each = ", ".join(f"{label} ({count:,})" for label, count in zip(class_names, counts, strict=True))
            notes.append(f"{name}: {each}")
        else:
            notes.append(f"{name}: {counts.min():,} to {counts.max():,} images of a class")
        if name == "train" and counts.min() * _RARE < counts.max():
            rarest, commonest = int(counts.argmin()), int(counts.argmax())
            notes.append(
                f"{class_names[rarest]} has {counts[rarest]:,} training images and {class_names[commonest]} "
                f"{counts[commonest]:,}: {_against_imbalance(config, several)}"
            )
    return notes


def _against_imbalance(config: Config, several_labels: bool) -> str:
    """Returns what the config does about rare classes, or what it could do."""
    loss = config.loss
    asked = {
        "config.data.balance": config.data.balance,
        "config.loss.class_weights": loss.class_weights,
        "config.loss.logit_adjustment": loss.logit_adjustment,
    }
    if done := [f"{key} {written(value)}" for key, value in asked.items() if value]:
        return f"{' and '.join(done)} {'make' if len(done) > 1 else 'makes'} up for it"
    ways = ["config.data.balance=0.5 (it is seen more often)", "config.loss.class_weights=balanced (it counts more)"]
    if not several_labels:
        ways.append("config.loss.logit_adjustment=1 (its frequency is left out of the answer)")
    return f"what is rare is hardly learned; try {', or '.join(ways)}"
