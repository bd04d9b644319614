"""The exceptions that mean: the user can mend this."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can correct.

    The message says what was expected, what was found and what to do. Commands print it alone, without a traceback
    (`jaxnets.cli`); library users catch it like any exception.
    """

    status = 1  # of the command


class Diverged(UserError):
    """A training whose loss or weights are no numbers any more."""


TEMPORARY = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong with the command, run it again


class TryAgain(UserError):
    """Something failed that is no mistake, a lost host for instance; what was saved is there to go on from."""

    status = TEMPORARY


def nearest(name: str, valid: Iterable[str]) -> str:
    """Returns `" (did you mean 'x'?)"` for the valid name most like `name`, or an empty string where none is alike."""
    found = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.6)
    return f" (did you mean {found[0]!r}?)" if found else ""


def quoted(text: str) -> str:
    """Returns a stranger's text in quotes, on one line, without control characters and not too long."""
    return ascii(text if len(text) <= 120 else text[:117] + "...")
