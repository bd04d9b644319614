"""What a fine-tune remembers between its sessions: finetune.json in the run directory."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from jaxnets.config import Config, resolve
from jaxnets.errors import UserError
from jaxnets.run.directory import RunDirectory, read_json, write_json
from jaxnets.run.storage import kind_of

_NAME = "finetune.json"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Memo:
    asked: Config  # what the command said, before anything was decided
    head: dict[str, Any] = field(default_factory=dict)  # how the head was found, and how good it is
    after: Config | None = None  # the training that follows it; None: none so far
    result: dict[str, Any] | None = None  # of the best checkpoint, once all is done

    def write(self, run: RunDirectory) -> None:
        content = dataclasses.asdict(self)
        write_json(run.path / _NAME, {"format": _FORMAT, **content})


def read_memo(run: RunDirectory) -> Memo | None:
    """Returns what was written; None where nothing was.

    Raises:
        UserError: if it cannot be read, or was written by a later version.
    """
    path = run.path / _NAME
    if kind_of(path) != "file":
        return None
    saved = read_json(path)
    if saved.get("format") != _FORMAT:
        raise UserError(f"{path} has format {saved.get('format')}, this jaxnets reads format {_FORMAT}: update jaxnets")
    try:
        return Memo(
            asked=resolve(saved["asked"]),
            head=dict(saved["head"]),
            after=None if saved["after"] is None else resolve(saved["after"]),
            result=saved["result"],
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is not what jaxnets wrote ({error!r}): restore it from a copy") from error
