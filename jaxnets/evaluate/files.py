"""What an evaluation writes: a folder beside the run, or wherever the user says, in a bucket too."""

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from jaxnets.errors import UserError
from jaxnets.run.directory import finite
from jaxnets.run.storage import Place, bucket_errors

_MARK = "\x00rows\x00"  # what stands for rows of numbers until the rest is written


def write_file(path: Place, content: bytes | Iterable[bytes]) -> None:
    """Writes a file, in a directory under another name first, so that a reader never sees half of it.

    Raises:
        UserError: if it cannot be written.
    """
    parts = [content] if isinstance(content, bytes) else content
    try:
        if not isinstance(path, Path):
            with bucket_errors(path):
                path.write_bytes(b"".join(parts))
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                file.writelines(parts)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): make room or permission for it") from error


def metrics_text(metrics: Mapping[str, Any]) -> str:
    """Returns metrics.json: indented, but for the confusion matrix, whose rows are a line each."""
    rows = metrics.get("confusion")
    content = finite({**metrics, "confusion": _MARK} if rows is not None else metrics)
    text = json.dumps(content, indent=2, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a path that is no UTF-8
        text = json.dumps(content, indent=2)
    if rows is not None:
        lines = ",\n".join(f"    {json.dumps(row, separators=(',', ':'))}" for row in rows)
        text = text.replace(json.dumps(_MARK), f"[\n{lines}\n  ]", 1)
    return text + "\n"
