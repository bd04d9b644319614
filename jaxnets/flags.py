"""`--config=FILE` and `--config.key=value`, through ml_collections, with its errors turned into messages."""

import importlib.resources
import re
from functools import reduce
from operator import getitem
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from jaxnets.config import Config, default_config, resolve
from jaxnets.errors import UserError, nearest
from jaxnets.schema import flatten


def load_config(file: str, overrides: list[str]) -> Config:
    """Reads a config file, changes it by `--config.key=value` arguments and resolves it.

    Args:
        file: a path, or the name of a config that ships with jaxnets.

    Raises:
        UserError: if there is no such file, if it fails, or if a key or value is wrong.
    """
    path = _find(file)
    defaults = flatten(Config())
    keys = list(defaults)
    unset = [key for key, value in defaults.items() if value is None and f"--config.{key}=None" in overrides]
    overrides = [argument for argument in overrides if argument not in {f"--config.{key}=None" for key in unset}]
    for argument in overrides:
        match = re.match(r"--?config\.([^=]+)(=|$)", argument)
        if argument.startswith("-") and not match:
            raise UserError(f"unknown option {argument}: options of the config are written --config.KEY=VALUE")
        if match and match[1] not in keys:
            raise UserError(f"config.{match[1]} is not a key{nearest(match[1], keys)}; valid are {', '.join(keys)}")
    values = flags.FlagValues()
    arguments = ["jaxnets", f"--config={path}", *overrides]
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=arguments)
    try:
        left = values(arguments)[1:]
        config = holder.value
    except (flags.Error, ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(_explain(error, path, keys)) from error
    except Exception as error:  # a config file is a program, and may fail in any way
        raise UserError(f"the config file {path} fails: {type(error).__name__}: {error}") from error
    if left:
        raise UserError(f"unexpected argument {left[0]!r}: options of the config are written --config.KEY=VALUE")
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config() of {path} must return a ConfigDict, found {type(config).__name__}")
    for key in unset:
        *groups, name = key.split(".")
        reduce(getitem, groups, config)[name] = None
    return resolve(config)


def shipped_configs() -> dict[str, Path]:
    """Returns the configs that come with jaxnets, by name."""
    package = Path(str(importlib.resources.files("jaxnets")))
    # In an installed package they lie inside; in a checkout beside it.
    for directory in (package / "configs", package.parent / "configs"):
        found = {path.stem: path for path in sorted(directory.glob("*.py"))}
        if found:
            return found
    return {}


def _find(file: str) -> Path:
    path = Path(file).expanduser()
    if path.is_file():
        return path
    shipped = shipped_configs()
    if file in shipped:
        return shipped[file]
    if path.parent == Path("configs") and path.stem in shipped:  # README's path, used outside a checkout
        return shipped[path.stem]
    raise UserError(
        f"there is no config file {file!r}{nearest(file, shipped)}: give a path, or one of {', '.join(shipped)}"
    )


def _explain(error: Exception, path: Path, keys: list[str]) -> str:
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    flag = re.match(r"flag --?(config\.\S+?)=(.*?): (.*)", text, re.DOTALL)
    if flag:
        key, value, reason = flag.groups()
        wanted = type(_default(key.removeprefix("config."))).__name__
        return f"{key} cannot be {value!r}: {wanted if wanted != 'NoneType' else reason.splitlines()[0]} expected"
    unknown = re.search(r'Key "(\w+)" does not exist', text)
    if unknown:
        names = {part for key in keys for part in key.split(".")}
        return f"the config file {path} sets {unknown[1]!r}, which is not a key{nearest(unknown[1], names)}"
    if isinstance(error, flags.Error):  # absl's wrapping of what the file raised: "flag --config=…: …"
        return f"the config file {path} fails: {text.partition(': ')[2]}"
    return f"the config file {path} fails: {type(error).__name__}: {text}"


def _default(key: str) -> object:
    value: object = default_config()
    for part in key.split("."):
        value = value[part] if isinstance(value, ConfigDict) else None
    return value
