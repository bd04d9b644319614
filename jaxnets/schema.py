"""What a key of the configuration may hold, and how frozen dataclasses, `ConfigDict` and JSON become one another.

A spec is a frozen dataclass whose fields have defaults; a field that is itself a spec is a group of keys. Each stage
defines the spec that it needs, and `jaxnets.config` puts them together.
"""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from ml_collections import ConfigDict, config_dict

from jaxnets.errors import UserError, nearest


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, the ends included unless said otherwise."""

    low: float
    high: float = math.inf
    without_low: bool = False
    without_high: bool = False

    def __contains__(self, x: object) -> bool:
        if not isinstance(x, int | float):
            return False
        above = x > self.low if self.without_low else x >= self.low
        below = x < self.high if self.without_high else x <= self.high
        return above and below and not math.isinf(x)

    def __str__(self) -> str:
        low = f"{'above' if self.without_low else 'at least'} {self.low:.12g}"
        if math.isinf(self.high):
            return low
        return f"{low} and {'below' if self.without_high else 'at most'} {self.high:.12g}"


_SIZE = re.compile(r"\s*(\d{1,9})\s*(?:[x×]\s*(\d{1,9})\s*)?")


class Size:
    """The pixels of an image: one number for a square, or (height, width)."""

    def parse(self, value: Any) -> int | tuple[int, int] | None:
        """Returns the value as it is kept; None for what is no size."""
        if isinstance(value, str) and (found := _SIZE.fullmatch(value)):
            numbers = [int(number) for number in found.groups() if number]
            value = numbers[0] if len(numbers) == 1 else numbers
        if isinstance(value, list | tuple) and len(value) == 2 and all(_is_count(number) for number in value):
            return value[0] if value[0] == value[1] else (value[0], value[1])
        return value if _is_count(value) else None

    def __str__(self) -> str:
        return "pixels, one number for a square or HEIGHTxWIDTH (16x64)"


class Auto(int):
    """What `AUTO` is: a number that is not known yet, 0 as long as it is not."""

    def __repr__(self) -> str:
        return "auto"

    __str__ = __repr__


AUTO = Auto(0)


class CountOrAuto:
    """A whole number above 0, or the word auto, which is kept as `AUTO`: a run finds the number when it begins."""

    def parse(self, value: Any) -> int | None:
        """Returns the value as it is kept; None for what is neither."""
        if isinstance(value, Auto) or (isinstance(value, str) and value.strip().lower() == "auto"):
            return AUTO
        if isinstance(value, float) and value.is_integer():  # 1e3 is a whole number too
            value = int(value)
        return value if _is_count(value) else None

    def __str__(self) -> str:
        return "a whole number, at least 1, or auto"


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """Returns height and width of what a key of the kind `Pixels` holds."""
    return (size, size) if isinstance(size, int) else size


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, without_low=True)]
NonNegative = Annotated[float, Range(0)]
ZeroToOne = Annotated[float, Range(0, 1)]
ZeroToBelowOne = Annotated[float, Range(0, 1, without_high=True)]
AboveZeroToOne = Annotated[float, Range(0, 1, without_low=True)]
BetweenZeroAndOne = Annotated[float, Range(0, 1, without_low=True, without_high=True)]
Pixels = Annotated[int | tuple[int, int], Size()]
BatchSize = Annotated[int, CountOrAuto()]

_T = TypeVar("_T")


def flatten(spec: Any, prefix: str = "") -> dict[str, Any]:
    """Returns `{"model.name": "resnet20_cifar", …}` for a spec, in the order of its fields."""
    flat: dict[str, Any] = {}
    for entry in dataclasses.fields(spec):
        value = getattr(spec, entry.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{entry.name}.")
        else:
            flat[prefix + entry.name] = value
    return flat


def written(value: Any) -> str:
    """Returns a value as it would be written on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(written, value)) + ("," if len(value) == 1 else "")
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def to_config_dict(spec: Any) -> ConfigDict:
    """Returns a spec for config files and flags to change; what is None takes values of its own type alone."""
    config = ConfigDict()
    for name, kind, _ in keys(type(spec)):
        value = getattr(spec, name)
        if dataclasses.is_dataclass(value):
            value = to_config_dict(value)
        elif value is None or kind is object:
            value = config_dict.FieldReference(value, field_type=kind)
        config[name] = value
    return config


def keys(spec_type: type) -> Iterator[tuple[str, type, Any]]:
    """Yields each key's name, its plain type and what restrains it.

    That is None, a Range, a Size, a CountOrAuto, the tuple of its choices, or the type of a tuple's elements.
    """
    for name, hint in typing.get_type_hints(spec_type, include_extras=True).items():
        if typing.get_origin(hint) is typing.ClassVar:
            continue
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
            hint = next(option for option in typing.get_args(hint) if option is not type(None))
        restraint: Any = None
        if typing.get_origin(hint) is Annotated:
            hint, restraint = typing.get_args(hint)
            if isinstance(restraint, Size | CountOrAuto):
                hint = object  # of two types
        elif typing.get_origin(hint) is Literal:
            restraint = typing.get_args(hint)
            hint = type(restraint[0])
        elif typing.get_origin(hint) is tuple:
            restraint = typing.get_args(hint)[0]
        yield name, typing.get_origin(hint) or hint, restraint


def optional(spec_type: type) -> set[str]:
    """Returns the names of the keys that may be None, whatever their default is."""
    return {name for name, hint in typing.get_type_hints(spec_type).items() if type(None) in typing.get_args(hint)}


def to_spec(spec_type: type[_T], given: Mapping[str, Any], prefix: str = "") -> _T:
    """Returns the spec that a mapping of values describes; what it leaves out has its default.

    Raises:
        UserError: for an unknown key, or a value of the wrong type or out of range.
    """
    schema = {name: (kind, restraint) for name, kind, restraint in keys(spec_type)}
    for key in given:
        if key not in schema:
            raise UserError(f"config.{prefix}{key} is not a key{nearest(key, schema)}; valid are {', '.join(schema)}")
    may_be_none = optional(spec_type)
    values: dict[str, Any] = {}
    for name, value in given.items():
        kind, restraint = schema[name]
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, Mapping):
                raise UserError(f"config.{prefix}{name} is a group of keys, found {value!r}")
            values[name] = to_spec(kind, value, f"{prefix}{name}.")
        elif value is None and name in may_be_none:
            values[name] = None
        else:
            values[name] = _check(f"config.{prefix}{name}", value, kind, restraint)
    return spec_type(**values)


def _check(key: str, value: Any, kind: type, restraint: Any) -> Any:
    if isinstance(restraint, Size | CountOrAuto):
        parsed = restraint.parse(value)
        if parsed is None:
            raise UserError(f"{key} must be {restraint}, found {value!r}")
        return parsed
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is tuple:
        return _check_tuple(key, value, restraint)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        wanted = kind.__name__
        raise UserError(f"{key} must be {wanted}, found {value!r} ({type(value).__name__})")
    if isinstance(restraint, Range) and value not in restraint:
        raise UserError(f"{key} must be {restraint}, found {value}")
    if isinstance(restraint, tuple) and value not in restraint:
        valid = ", ".join(str(choice) for choice in restraint)
        raise UserError(f"{key} must be one of {valid}, found {value!r}{nearest(str(value), map(str, restraint))}")
    return value


def _check_tuple(key: str, value: Any, element: type) -> tuple[Any, ...]:
    numbers = element is float
    kinds = (int, float) if numbers else (element,)
    if not isinstance(value, list | tuple) or not all(isinstance(x, kinds) for x in value):
        wanted = {float: "numbers", int: "whole numbers"}.get(element, "names")
        raise UserError(f"{key} must be tuple of {wanted}, found {value!r} ({type(value).__name__})")
    return tuple(float(x) if numbers else x for x in value)
