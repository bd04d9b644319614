"""Which index is of which model, as a command line says it."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxnets.errors import UserError, nearest


def by_model(given: Sequence[str], names: Iterable[str]) -> dict[str, str]:
    """Returns the folders of `DIR` or `NAME=DIR` by the models' names; a folder alone is of the only model.

    Raises:
        UserError: if a model is not there or has two, or it is not said which of several is meant.
    """
    known = list(names)
    found: dict[str, str] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals or Path(text).exists():
            if len(known) > 1:
                raise UserError(f"--index {text}: there are several models, say of which it is: NAME={text}")
            name, folder = known[0], text
        if name not in known:
            raise UserError(
                f"--index {text} names the model {name!r}, which is not there{nearest(name, known)}: expected "
                f"{', '.join(known)}"
            )
        if name in found:
            raise UserError(f"--index {text}: {name} has an index already, {found[name]}: give one")
        found[name] = folder
    return found
