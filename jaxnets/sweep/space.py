"""A search space: keys of the config, and what a sweep may set each of them to."""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxnets.config import Config, with_changes
from jaxnets.config_files import LIST, call_in_file
from jaxnets.errors import UserError
from jaxnets.keys import Key, all_keys, did_you_mean, groups
from jaxnets.schema import written


@dataclass(frozen=True)
class Floats:
    """The numbers from `low` to `high`, with `log` as many below the geometric mean as above it."""

    low: float
    high: float
    log: bool = False

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (", by its logarithm" if self.log else "")


@dataclass(frozen=True)
class Ints:
    """The whole numbers from `low` to `high`, `step` apart, with `log` as many below the geometric mean as above it."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def __str__(self) -> str:
        step = f" in steps of {self.step}" if self.step != 1 else ""
        return f"{self.low} to {self.high}{step}" + (", by its logarithm" if self.log else "")


@dataclass(frozen=True)
class Choices:
    """One of several values, which have no order."""

    values: tuple[Any, ...]

    @property
    def by_text(self) -> dict[str, Any]:
        """The values by how they are written on a command line."""
        return {written(value): value for value in self.values}

    def __str__(self) -> str:
        return " or ".join(self.by_text)


Range = Floats | Ints | Choices
Space = Mapping[str, Range]  # by the full name of a key, such as "optimizer.learning_rate"

_FORMS = "floats(low, high), ints(low, high) or choices(value, value, …) of jaxnets.sweep"
# What decides which images the figure is of, or which figure it is: trials that differ in it cannot be compared.
_THE_SCALE = (
    "seed", "best", "finetune.",
    "data.source", "data.validation", "data.folds", "data.fold", "data.test_share", "data.num_classes",
    "data.shots", "data.table.", "data.test_size", "data.fit", "data.crop_fraction",
)  # fmt: skip
# Likewise where trials are compared by the loss: another loss is another number. What only training has of it may vary.
_THE_LOSS = ("loss.name", "loss.softmax_cross_entropy.", "loss.sigmoid_cross_entropy.", "loss.focal.")


def floats(low: float, high: float, *, log: bool = False) -> Floats:
    """Returns the numbers from `low` to `high`; `log` for what is compared by factors, as rates are.

    Raises:
        UserError: if there are none.
    """
    _check_ends(low, high, log, float)
    return Floats(float(low), float(high), log)


def ints(low: int, high: int, *, log: bool = False, step: int = 1) -> Ints:
    """Returns the whole numbers from `low` to `high`, `step` apart.

    Raises:
        UserError: if there are none.
    """
    _check_ends(low, high, log, int)
    if not _is_int(step) or step < 1 or (log and step != 1):
        raise UserError(f"step must be a whole number, at least 1, and 1 with log=True, found {step!r}")
    return Ints(low, low + (high - low) // step * step, log, step)


def choices(*values: Any) -> Choices:
    """Returns a choice of values, as they are set in a config file.

    Raises:
        UserError: if there are not two that differ.
    """
    found = Choices(tuple(tuple(value) if isinstance(value, list) else value for value in values))
    if len(found.by_text) < 2 or len(found.by_text) != len(values):
        raise UserError(f"choices() needs two values or more, all different, found {', '.join(map(written, values))}")
    return found


def read_space(file: str | os.PathLike[str]) -> dict[str, Range]:
    """Returns what `get_space()` of a Python file returns.

    Raises:
        UserError: if there is no such file, if it fails, or if it returns no space.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise UserError(f"there is no file {str(file)!r}: --space is a Python file whose get_space() returns the space")
    return as_space(
        call_in_file(path, "get_space", f"the space, a mapping from keys to {_FORMS}"), f"get_space() of {path}"
    )


def as_space(found: Any, where: str = "the space") -> dict[str, Range]:
    """Returns a space, its keys without `config.` before them.

    Raises:
        UserError: if it is none.
    """
    if not isinstance(found, Mapping) or not found:
        raise UserError(
            f"{where} must be a mapping from keys to {_FORMS}, with a key at least, found "
            f"{'an empty one' if isinstance(found, Mapping) else type(found).__name__}"
        )
    for key, values in found.items():
        if not isinstance(key, str) or not isinstance(values, Floats | Ints | Choices):
            raise UserError(f"{where} must map keys to {_FORMS}, found {key!r}: {values!r}")
    return {key.removeprefix("config."): values for key, values in found.items()}


def check_space(space: Space, config: Config) -> None:
    """Refuses a space that the config could not take.

    Raises:
        UserError: for what is no key, for a key that trials cannot be compared over, and for a value that it may not
            have.
    """
    scale = _THE_SCALE + (_THE_LOSS if config.best == "loss" else ())
    for name, values in space.items():
        key = all_keys().get(name)
        if key is None:
            if name in groups():
                raise UserError(f"the space has config.{name}, which is a group of keys: name one of them")
            raise UserError(f"the space has config.{name}, which is not a key{did_you_mean(name)}; {LIST}")
        if name.startswith(scale):
            raise UserError(
                f"the space has config.{name}, which decides what the trials are measured by, so that they could not "
                f"be compared: set it for all of them with --config.{name}=…, and take it out"
            )
        _check_kind(key, values)
        refusals = [refusal for value in _ends(values) if (refusal := _refusal(config, name, value))]
        if len(refusals) == len(_ends(values)) or any(f"config.{name} must be" in text for text in refusals):
            raise UserError(f"the space cannot have config.{name} from {values}: {refusals[0]}")


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """Returns the config with keys, by their full names, set to other values.

    Raises:
        UserError: if it cannot have them.
    """
    return with_changes(asdict(config), values)


def _ends(values: Range) -> tuple[Any, ...]:
    return values.values if isinstance(values, Choices) else (values.low, values.high)


def _refusal(config: Config, name: str, value: Any) -> str | None:
    try:
        with_values(config, {name: value})
    except UserError as error:
        return str(error)
    return None


def _check_kind(key: Key, values: Range) -> None:
    fits = {Floats: key.kind is float, Ints: key.kind in (int, float, object)}.get(type(values), True)
    if not fits:
        form = "choices(…)" if key.kind not in (int, object) else "ints(low, high)"
        raise UserError(f"the space has numbers for config.{key.name}, which is {key.form}: give {form}")


def _check_ends(low: Any, high: Any, log: bool, kind: type) -> None:
    numbers = all(_is_int(end) or (kind is float and isinstance(end, float)) for end in (low, high))
    if not numbers or not all(map(math.isfinite, (low, high))):
        wanted = "whole numbers" if kind is int else "numbers"
        raise UserError(f"a range of the space needs two {wanted}, found {low!r} and {high!r}")
    if not low < high:
        raise UserError(f"a range of the space goes from its least to its largest value, found {low:g} to {high:g}")
    if log and low <= 0:
        raise UserError(f"a range by its logarithm begins above 0, found {low:g} to {high:g}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
