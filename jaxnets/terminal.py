"""What is printed: plain text, on whatever a terminal can show.

Class names and paths are a stranger's. No console made here reads them as markup, and what a terminal's encoding
lacks is written in another way, for no run may end because of a dash that could not be shown.
"""

import codecs
import json
import logging
import os
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

# What our own messages hold; all else is escaped, for a name that looks right and is not would mislead.
_INSTEAD = {"—": "-", "–": "-", "×": "x", "…": "...", "·": "-", "−": "-", "≈": "~", "✓": "+", "✗": "x", "›": ">"}

_HANDLER = "jaxnets.terminal"


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Returns what a terminal gets in place of what its encoding lacks; a byte of a name that is no UTF-8 is \\xff."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    shown = []
    for character in error.object[error.start : error.end]:
        code = ord(character)
        if 0xDC80 <= code <= 0xDCFF:  # how Python holds such a byte
            shown.append(f"\\x{code - 0xDC00:02x}")
        else:
            shown.append(_INSTEAD.get(character) or character.encode("ascii", "backslashreplace").decode())
    return "".join(shown), error.end


codecs.register_error(_HANDLER, _replace)


def show_anything(*streams: TextIO) -> None:
    """Lets streams write text that their encoding lacks, in another way."""
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)  # a notebook's or a test's stream may have none
        if reconfigure is not None and stream.errors in ("strict", "backslashreplace", "surrogateescape"):
            reconfigure(errors=_HANDLER)


def console(*, quiet: bool = False) -> "Console":
    """Returns a console that shows text as it is: no markup, no emoji codes, no colours by guess."""
    from rich.console import Console  # 0.1 s, which most commands do without

    class Quiet(Console):
        def on_broken_pipe(self) -> None:
            """Falls silent where nobody reads any more, as after Ctrl-C in `… | tee`; a run goes on, or is saved."""
            self.quiet = True
            silence()

    show_anything(sys.stdout)
    return Quiet(markup=False, emoji=False, highlight=False, quiet=quiet)


def shown(text: str) -> str:
    """Returns a name or a path as standard output can show it, on one line: no control character gets through."""
    line = "".join(ascii(c)[1:-1] if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
    encoding = sys.stdout.encoding or "utf-8"
    return line.encode(encoding, _HANDLER).decode(encoding)


def json_text(content: Mapping[str, Any], indent: int | None = None) -> str:
    """Returns JSON, with its own escapes where standard output could not show the text."""
    text = json.dumps(content, ensure_ascii=False, indent=indent)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(content, indent=indent)
    return text


def silence() -> None:
    """Sends standard output nowhere: its reader has gone."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


@contextmanager
def without_warnings() -> Iterator[None]:
    """Shows no warnings of jaxnets while the block lasts: they would be of what is tried, not of what is done."""
    log = logging.getLogger("jaxnets")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
