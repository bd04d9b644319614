"""How the words of an evaluation are read: what each takes from Python, and how its command says it."""

import operator
import os
import re
from collections.abc import Callable, Iterable
from glob import glob
from pathlib import Path
from typing import Any

from jaxnets.errors import UserError

Size = int | tuple[int, int]


class Word:
    """What an option takes: `read` turns what Python gives into what the field holds, `command` goes to argparse."""

    def __init__(self, help: str, read: Callable[[str, Any], Any], *, group: str = "", **command: Any) -> None:
        self.help, self.read, self.group, self.command = help, read, group, command


def refuse(name: str, expected: str, value: Any) -> UserError:
    return UserError(f"{spelt(name)} must be {expected}, found {value!r}")


def text(name: str, value: Any, expected: str = "text") -> str:
    if not isinstance(value, str | os.PathLike) or not os.fsdecode(value):
        raise refuse(name, expected, value)
    return os.fsdecode(value)


def path(name: str, value: Any) -> Path:
    return Path(text(name, value, "a path"))


def flag(name: str, value: Any) -> bool:
    if value is not True and value is not False:
        raise refuse(name, "True or False", value)
    return bool(value)


def whole(name: str, value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError as error:
        raise refuse(name, "a whole number", value) from error


def number(name: str, value: Any) -> float:
    try:
        if isinstance(value, bool | str):
            raise TypeError
        return float(value)
    except (TypeError, ValueError) as error:
        raise refuse(name, "a number", value) from error


def several(name: str, value: Any) -> tuple[str, ...]:
    """Reads names or paths: one, or any number of them."""
    if isinstance(value, str | os.PathLike):
        return (text(name, value),)
    if not isinstance(value, Iterable):
        raise refuse(name, "text, or a list of it", value)
    return tuple(text(name, each) for each in value)


def runs(name: str, value: Any) -> tuple[str, ...]:
    """Reads run directories: one, or any number, or a pattern (runs/*) where no shell has put them in its place."""
    found: list[str] = []
    for each in several(name, value):
        matching = [] if os.path.lexists(each) else sorted(glob(each))
        found += matching or [each]
    if not found:
        raise refuse(name, "one or more of them", value)
    return tuple(found)


def or_alone(usual: Any, read: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    """Reads True as what the option means where it stands alone, and False as if it were left out."""

    def either(name: str, value: Any) -> Any:
        return usual if value is True else None if value is False else read(name, value)

    return either


def checkpoint(name: str, value: Any) -> str | int:
    return text(name, value) if isinstance(value, str | os.PathLike) else whole(name, value)


def weights(name: str, value: Any) -> str:
    if value not in ("ema", "raw"):
        raise refuse(name, "ema or raw", value)
    return str(value)


def count(name: str, value: Any) -> str:
    """Reads a number of images, or all; `further.corrupted_images` says what it means."""
    return value if isinstance(value, str) else str(whole(name, value))


def size(name: str, value: Any) -> Size:
    """Reads pixels of a side, or of height and width: a number, two, or text as 64x48."""
    if isinstance(value, str):
        return read_size(value)
    given = value if isinstance(value, tuple | list) else (value,)
    sides = tuple(whole(name, each) for each in given)
    if len(sides) not in (1, 2) or not all(0 < each < 10_000 for each in sides):
        raise refuse(name, "pixels of a side, or height and width, up to 9999", value)
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def read_size(text: str) -> Size:
    """Returns a side, or height and width, from what --size says.

    Raises:
        UserError: if it is neither.
    """
    found = re.fullmatch(r"([1-9]\d{0,3})(?:[x×]([1-9]\d{0,3}))?", text.strip())
    if found is None:
        raise UserError(f"--size must be pixels of a side, or HEIGHTxWIDTH, up to 9999, found {text!r}")
    height, width = found.groups()
    return int(height) if width is None else (int(height), int(width))


def spelt(name: str) -> str:
    """Returns an option as the command has it, which is how messages name it."""
    return f"--{name.replace('_', '-')}"
