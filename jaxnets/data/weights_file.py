"""A file that gives each class a weight: CSV lines of `class,weight`, or a JSON object."""

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxnets.data.sources.bucket import BUCKET, read_whole
from jaxnets.data.sources.names import printable
from jaxnets.errors import UserError, nearest, quoted
from jaxnets.recipe.losses.table import BALANCED, LossConfig

_SEPARATORS = ",;\t"
_EXAMPLE = '{"cat": 2.0, "dog": 1.0}'


def with_absolute_path(spec: LossConfig) -> LossConfig:
    """Returns the spec with a file that means the same from any working directory, as a run directory wants it."""
    path = spec.class_weights
    if path is None or path == BALANCED or path.startswith(BUCKET):
        return spec
    return replace(spec, class_weights=os.path.abspath(os.path.expanduser(path)))


def read_weights(path: str, class_names: Sequence[str]) -> list[float]:
    """Returns the weight of each class, above 0, in the order of `class_names`.

    A first line whose second cell is no number is a heading.

    Raises:
        UserError: if it cannot be read, is neither form, or names other classes than these.
    """
    shown = printable(path)
    try:
        content = read_whole(path) if path.startswith(BUCKET) else Path(path).read_bytes()
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(
            f"config.loss.class_weights must be balanced, or a file with a line class,weight for each class; there is "
            f"no file {shown}{nearest(Path(path).name, ['balanced'])}"
        ) from None
    except (OSError, UnicodeError) as error:
        raise UserError(f"{shown}, of config.loss.class_weights, cannot be read: {error}") from error
    is_json = path.endswith(".json") or text.lstrip().startswith("{")
    pairs = _of_json(text, shown) if is_json else _of_lines(text, shown)
    weights: dict[str, float] = {}
    for name, weight in pairs:
        if name in weights:
            raise UserError(f"{shown} gives the class {quoted(name)} two weights: leave one")
        weights[name] = weight
    _refuse_others(weights, class_names, shown)
    return [weights[name] for name in class_names]


def _refuse_others(weights: Mapping[str, float], class_names: Sequence[str], shown: str) -> None:
    known, unknown = set(class_names), [name for name in weights if name not in set(class_names)]
    if unknown:
        raise UserError(
            f"{shown} gives a weight to {_some(unknown)}{nearest(unknown[0], known - weights.keys())}, which the data "
            f"has no class of; its classes are {_some(class_names)}"
        )
    if missing := [name for name in class_names if name not in weights]:
        raise UserError(f"{shown} gives no weight to {_some(missing)}: add them (1 leaves a class as it is)")


class _Pairs(list[tuple[str, Any]]):
    """A JSON object, a name that is there twice included."""


def _of_json(text: str, shown: str) -> list[tuple[str, float]]:
    try:
        found = json.loads(text, object_pairs_hook=_Pairs)
    except ValueError as error:
        raise UserError(f"{shown} is no JSON ({error}): write {_EXAMPLE}") from error
    if not isinstance(found, _Pairs):
        raise UserError(f"{shown} must hold an object with a weight for each class, {_EXAMPLE}")
    return [(printable(name.strip()), _weight(value, f"{quoted(name)} in {shown}")) for name, value in found]


def _of_lines(text: str, shown: str) -> list[tuple[str, float]]:
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise UserError(f"{shown} is empty: write a line class,weight for each class")
    tables = {mark: [next(csv.reader([line], delimiter=mark)) for _, line in lines] for mark in _SEPARATORS}
    fitting = [table for table in tables.values() if all(len(cells) == 2 for cells in table)]
    if not fitting:
        mark = max(_SEPARATORS, key=lambda mark: sum(len(cells) == 2 for cells in tables[mark]))
        number, line = next(at for at, cells in zip(lines, tables[mark], strict=True) if len(cells) != 2)
        raise UserError(f"{shown} must have lines of class,weight, found {quoted(line)} in line {number}")
    rows = fitting[0]
    heading = len(rows) > 1 and _number(rows[0][1]) is None
    return [
        (printable(name.strip()), _weight(weight, f"line {number} of {shown}"))
        for (number, _), (name, weight) in zip(lines[heading:], rows[heading:], strict=True)
    ]


def _weight(value: Any, where: str) -> float:
    weight = _number(value)
    if weight is None or not math.isfinite(weight) or weight <= 0:
        raise UserError(f"the weight of {where} must be a number above 0, found {quoted(str(value))}")
    return weight


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _some(names: Sequence[str]) -> str:
    return ", ".join(quoted(name) for name in names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
