"""A text file that names the classes, one a line, for labels that are numbers."""

import os
from pathlib import Path

from jaxnets.data.sources.bucket import BUCKET, read_whole
from jaxnets.data.sources.names import printable
from jaxnets.errors import UserError, quoted

CLASSES = "classes.txt"  # that lies beside the files of a data set


def read_class_names(path: str) -> list[str] | None:
    """Returns the lines of a file, of a bucket too; None where there is no such file.

    Raises:
        UserError: if it cannot be read, or a line is empty or there twice.
    """
    try:
        content = read_whole(path) if path.startswith(BUCKET) else Path(path).read_bytes()
        names = [printable(line.strip()) for line in content.decode("utf-8-sig").splitlines()]
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        raise UserError(f"{printable(path)} cannot be read: {error}") from error
    while names and not names[-1]:
        names.pop()
    if "" in names or len(set(names)) < len(names):
        wrong = next(number for number, name in enumerate(names) if not name or name in names[:number])
        raise UserError(
            f"{printable(path)} must have the name of a class in each line, all different, found "
            f"{quoted(names[wrong])} in line {wrong + 1}"
        )
    return names


def beside(file: str, name: str) -> str:
    """Returns the path of what is called so in a file's folder."""
    return os.path.join(os.path.dirname(file), name)
