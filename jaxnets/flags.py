"""`--config.key=value`, with one message for each way to get that wrong."""

import re
from collections.abc import Iterator
from typing import Any

from jaxnets.config import Config, default_config, with_changes
from jaxnets.config_files import LIST, read_config
from jaxnets.errors import UserError
from jaxnets.keys import TRUTHS, all_keys, did_you_mean, groups


def load_config(file: str | None, overrides: list[str]) -> Config:
    """Reads a config file, changes it by `--config.key=value` arguments and resolves it.

    Args:
        file: a path, or the name of a config that ships with jaxnets; None for the defaults.

    Raises:
        UserError: if there is no such file, if it fails, or if a key or value is wrong.
    """
    changes = dict(changes_of(overrides))
    return with_changes((default_config() if file is None else read_config(file)).to_dict(), changes)


def changes_of(overrides: list[str]) -> Iterator[tuple[str, Any]]:
    """Yields each key that is changed, and its new value; `--config.key value` serves too.

    Raises:
        UserError: if a key or its value is wrong.
    """
    arguments = list(overrides)
    while arguments:
        argument = arguments.pop(0)
        option, equals, text = argument.partition("=")
        match = re.fullmatch(r"--?config\.(.+)", option)
        if not match:
            _refuse(argument, arguments)
        name = match[1] if match else ""
        key = all_keys().get(name)
        if key is None:
            if name in groups():
                below = ", ".join(f"config.{other}" for other in all_keys() if other.startswith(f"{name}."))
                raise UserError(f"config.{name} is a group of keys, found {argument!r}: set one of {below}")
            raise UserError(f"config.{name} is not a key{did_you_mean(name)}; {LIST}")
        if not equals:
            follows = arguments[0] if arguments and not arguments[0].startswith("--") else None
            if key.kind is bool and (follows is None or follows.lower() not in (*TRUTHS, "none")):
                text = "true"
            elif follows is None:
                raise UserError(f"config.{name} needs a value: write for instance --config.{name}={key.example}")
            else:
                text = arguments.pop(0)
        yield name, key.parse(text)


def _refuse(argument: str, rest: list[str]) -> None:
    option, _, value = argument.partition("=")
    name = option.lstrip("-").removeprefix("config.")
    if not value and rest and not rest[0].startswith("-"):
        value = rest[0]
    if argument.startswith("-") or "=" in argument:
        raise UserError(
            f"unknown option {argument}{did_you_mean(name, value or None, '--config.')}: keys of the config are "
            f"written --config.KEY=VALUE; {LIST}"
        )
    raise UserError(f"unexpected argument {argument!r}: keys of the config are written --config.KEY=VALUE; {LIST}")
