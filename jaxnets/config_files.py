"""Config files: programs whose `get_config()` returns a `ConfigDict`, by path or by the name of one that ships."""

import importlib.resources
import importlib.util
import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxnets.errors import UserError, nearest
from jaxnets.keys import all_keys, did_you_mean

LIST = "python -m jaxnets.main --help lists all keys"
_MODULE = "jaxnets_config_file"  # the name under which a config file is imported


def read_config(file: str) -> ConfigDict:
    """Returns the config of a file, for a program to change: `config.epochs = 5.0`.

    Args:
        file: a path, or the name of a config that ships with jaxnets ("digits").

    Raises:
        UserError: if there is no such file, or it fails.
    """
    return _read(_find(file))


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
    path = Path(os.path.expanduser(file))
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


def _read(path: Path) -> ConfigDict:
    """Returns what the file's `get_config()` returns."""
    config = call_in_file(path, "get_config", "the config")
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config() of {path} must return a ConfigDict, found {type(config).__name__}")
    return config


def call_in_file(path: Path, function: str, what: str) -> Any:
    """Returns what a function without arguments in a Python file returns, which should be `what`.

    Raises:
        UserError: if the file has no such function, or fails.
    """
    spec = importlib.util.spec_from_loader(_MODULE, loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    sys.modules[_MODULE] = module  # where its own dataclasses look for it
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
        if not callable(getattr(module, function, None)):
            raise UserError(f"the config file {path} must define {function}(), which returns {what}")
        return getattr(module, function)()
    except UserError:
        raise
    except Exception as error:  # a config file is a program, and may fail in any way
        raise UserError(_explain(error, path)) from error
    finally:
        sys.modules.pop(_MODULE, None)


def _explain(error: Exception, path: Path) -> str:
    """Returns what is wrong with a config file, with the line where it is."""
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"the config file {path}" + (f", line {lines[-1].lineno} ({lines[-1].line})," if lines else "")
    unknown = re.search(r'Key "(\w+)" does not exist', text)
    if unknown is None and isinstance(error, AttributeError) and isinstance(error.__cause__ or error, AttributeError):
        unknown = re.fullmatch(r"\"?'(\w+)'\"?", text)  # one that is read
    if unknown:
        return f"{where} sets {unknown[1]!r}, which is not a key{did_you_mean(unknown[1])}; {LIST}"
    mistyped = re.match(r"Could not override field '(\w+)'.*?\. (.*) is of original type <class '(\w+)'>", text)
    if mistyped:
        forms = [key.form for name, key in all_keys().items() if name.rpartition(".")[2] == mistyped[1]]
        wanted = f": {' or '.join(dict.fromkeys(forms))} expected" if forms else ""
        return f"{where} sets {mistyped[1]!r} to {mistyped[2]} ({mistyped[3]}){wanted}"
    return f"{where} fails: {type(error).__name__}: {text}"
