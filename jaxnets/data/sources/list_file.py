"""A text file that lists images and their classes."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxnets.config import DataConfig
from jaxnets.data.sources.base import Source
from jaxnets.data.sources.files import FileSplit, survey
from jaxnets.data.sources.names import printable
from jaxnets.errors import UserError, quoted

_LINE = re.compile(
    r"(?P<path>[^\t]+)\t+(?P<tabbed>[^\t]+)|(?P<before>.+),(?P<listed>[^,]+)|(?P<first>.+)\s+(?P<last>\S+)"
)
_CHECKED = 1000  # paths, evenly spread, that must lead to a file


def open_list(location: str, spec: DataConfig, known: Sequence[str] | None) -> Source:
    """Opens a list: a line for each image, its path, then a tab, a comma or spaces, then its class.

    Of these the first that the line has is where it is divided, from the right: paths may hold spaces, and classes too
    after a tab or comma. Paths are relative to the list's folder. Empty lines are passed over.

    Args:
        location: the file, in UTF-8.
        spec: `white_level` of images of 16 bits.
        known: classes to evaluate on, or None to train; then the list must have two or more.

    Returns:
        A source with the one split "train", or "all" to evaluate on. Classes are sorted by name, numbers by value.

    Raises:
        UserError: if the file cannot be read, a line has no class, a path leads nowhere, or there are too few classes.
    """
    file = Path(location).expanduser()
    paths: list[str] = []
    classes: list[str] = []
    for number, line in enumerate(_lines(file, location), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise UserError(
                f"{file}, line {number}: expected a path and a class, with a tab, a comma or a space between them, "
                f"found {quoted(line)}"
            )
        path, name = (text.strip() for text in match.groups() if text is not None)
        paths.append(os.path.join(file.parent, path))
        classes.append(printable(name))
    names = sorted(set(classes), key=lambda name: (0, int(name), "") if name.isdecimal() else (1, 0, name))
    if known is None and len(names) < 2:
        raise UserError(f"{file} must have images of two or more classes, found {len(names)} ({', '.join(names)})")
    for index in np.linspace(0, len(paths) - 1, min(len(paths), _CHECKED)).astype(int):
        if not os.path.exists(paths[index]):
            raise UserError(
                f"{file} lists {quoted(paths[index])}, which does not exist: paths are relative to the folder of the "
                f"list, and there is no line of titles"
            )
    position = {name: label for label, name in enumerate(names)}
    labels = np.array([position[name] for name in classes], np.int32)
    found = survey(paths, spec.white_level)
    return Source(
        description=f"list:{printable(location)}",
        class_names=tuple(names),
        splits={"train" if known is None else "all": FileSplit(str(file.parent), paths, labels, spec.white_level)},
        image_size=found.image_size,
        channels=found.channels,
        notes=found.notes,
    )


def _lines(file: Path, location: str) -> list[str]:
    try:
        return file.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"config.data.source list:{location} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} must be text in UTF-8: {error}") from None
