"""Brings the predictions of two models to the same images in the same order, and their classes too."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int64

from jaxnets.errors import UserError, quoted
from jaxnets.evaluate.predictions import Predictions

_NAMED = 3  # that a message names


def aligned(first: Predictions, second: Predictions, names: tuple[str, str]) -> Predictions:
    """Returns the second predictions of the first's images, in their order and with their order of classes.

    Images are matched by their paths in the source, never by where they stand. Of images that are called the same, the
    first is matched with the first.

    Args:
        first: of the model that another is compared with.
        second: of the other.
        names: what messages call the two.

    Raises:
        UserError: if the classes are not the same, if one has images that the other has not, or if the two disagree
            about what an image is, so that it is not the same one.
    """
    columns = _columns(first.class_names, second.class_names, names)
    if first.several_labels != second.several_labels:
        kinds = ["several labels per image" if x.several_labels else "one label per image" for x in (first, second)]
        raise UserError(f"{names[0]} is of {kinds[0]} and {names[1]} of {kinds[1]}: they cannot be compared")
    order = _order(first, second, names)
    labels = second.labels[order]
    # Where each of its classes is among the first's.
    labels = labels[:, columns] if second.several_labels else np.argsort(columns)[labels].astype(np.int32)
    found = replace(
        second.take(order), class_names=first.class_names, labels=labels, logits=second.logits[order][:, columns]
    )
    differs = found.labels != first.labels
    wrong = np.flatnonzero(differs.any(1) if differs.ndim == 2 else differs)
    if len(wrong):
        example = int(wrong[0])
        raise UserError(
            f"{names[0]} and {names[1]} were evaluated on other images that are called the same: "
            f"{len(wrong):,} of {len(first):,} have other labels ({quoted(first.paths[example])} is "
            f"{_label(first, example)} in one, {_label(found, example)} in the other): evaluate both on one data set "
            "with --source"
        )
    return found


def _columns(first: Sequence[str], second: Sequence[str], names: tuple[str, str]) -> Int64[np.ndarray, " classes"]:
    """Returns which column of the second each class of the first is."""
    if set(first) == set(second):
        where = {name: column for column, name in enumerate(second)}
        return np.array([where[name] for name in first], np.int64)
    only = [[name for name in a if name not in set(b)] for a, b in ((first, second), (second, first))]
    said = [
        f"only {who} has {', '.join(map(quoted, mine[:_NAMED]))}{_more(len(mine))}"
        for who, mine in zip(names, only, strict=True)
        if mine
    ]
    raise UserError(
        f"{names[0]} and {names[1]} have other classes ({len(first)} and {len(second)}): {'; '.join(said)}. Models are "
        "compared where both know the same classes"
    )


def _order(first: Predictions, second: Predictions, names: tuple[str, str]) -> Int64[np.ndarray, " n"]:
    """Returns which of the second's images is each of the first's."""
    where: dict[str, list[int]] = defaultdict(list)
    for number, path in enumerate(second.paths):
        where[path].append(number)
    order = np.full(len(first), -1, np.int64)
    seen: dict[str, int] = defaultdict(int)
    for number, path in enumerate(first.paths):
        if seen[path] < len(where[path]):
            order[number] = where[path][seen[path]]
            seen[path] += 1
    missing = np.flatnonzero(order < 0)
    extra = len(second) - (len(first) - len(missing))
    if len(missing) or extra:
        shared = len(first) - len(missing)
        taken = set(order.tolist())
        other = next((second.paths[i] for i in range(len(second)) if i not in taken), None)
        example = quoted(first.paths[int(missing[0])]) if len(missing) else quoted(other or "")
        where_only = names[0] if len(missing) else names[1]
        raise UserError(
            f"{names[0]} and {names[1]} were evaluated on other images: {len(first):,} of {first.split} and "
            f"{len(second):,} of {second.split}, of which {shared:,} are the same ({example} is only in {where_only}'s)"
            ". Evaluate both on one data set, that neither was trained on, with --source"
        )
    return order


def _label(predictions: Predictions, example: int) -> str:
    if not predictions.several_labels:
        return quoted(predictions.class_names[int(predictions.labels[example])])
    listed = [predictions.class_names[i] for i in np.flatnonzero(predictions.labels[example])]
    return quoted("+".join(listed) or "none")


def _more(count: int) -> str:
    return f" and {count - _NAMED} more" if count > _NAMED else ""
