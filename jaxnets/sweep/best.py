"""The best config of a sweep, written out as a config file that stands by itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxnets.config import Config
from jaxnets.errors import UserError
from jaxnets.run.storage import write_whole
from jaxnets.schema import flatten


def write_best(path: Path, config: Config, values: Mapping[str, Any], said: str) -> None:
    """Writes a config file: `said` is what its first line tells of it, `values` are those that were sought."""
    command = f"python -m jaxnets.main --config {path} --workdir DIR"
    write_file(path, config_file(config, values, f"{said}\n\n{command}\n"))


def write_file(path: Path, content: str | bytes) -> None:
    """Writes a file as a whole.

    Raises:
        UserError: if it cannot be written.
    """
    try:
        write_whole(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): make room or permission for it") from error


def config_file(config: Config, values: Mapping[str, Any], docstring: str) -> str:
    """Returns a config file that makes this config of the defaults; what was sought stands last."""
    defaults = flatten(Config())
    changed = {key: value for key, value in flatten(config).items() if value != defaults[key] and key not in values}
    lines = [_setting(key, value) for key, value in changed.items()]
    sought = [_setting(key, value) for key, value in values.items()]
    body = "\n".join(("    config = default_config()", *lines, "    # What was sought.", *sought, "    return config"))
    text = docstring.replace("\\", "\\\\").replace('"""', "'''")
    return f'"""{text}"""\n\nfrom jaxnets.config import default_config\n\n\ndef get_config():\n{body}\n'


def _setting(key: str, value: Any) -> str:
    shown = "'auto'" if str(value) == "auto" and isinstance(value, int) else repr(value)
    return f"    config.{key} = {shown}"
