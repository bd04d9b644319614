"""Shows findings so that they read well in a terminal, in a notebook and in a log file."""

import textwrap
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from jaxnets import terminal
from jaxnets.doctor.machine import Finding

_SIGNS = {"fine": ("✓", "green"), "note": ("!", "yellow"), "fault": ("✗", "bold red")}


def show(findings: Sequence[Finding], console: Console | None = None) -> None:
    """Prints each finding, its remedy below it, and each command on a line of its own, never broken."""
    console = console or terminal.console()
    indent = max(len(finding.check) for finding in findings) + 4
    for finding in findings:
        sign, style = _SIGNS[finding.level]
        head = f"{sign} {finding.check}".ljust(indent)
        first, *rest = _wrapped(finding.found, console.width - indent)
        _print(console, (head, style), (first, ""))
        for line in rest:
            _print(console, (" " * indent + line, ""))
        for line in _wrapped(finding.remedy, console.width - indent) if finding.remedy else ():
            _print(console, (" " * indent + line, "cyan"))
        for command in finding.commands:
            _print(console, (" " * indent + "$ " + command, "bold cyan"))
    _print(console, ("\n" + _verdict(findings), "bold"))


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 30), break_long_words=False, break_on_hyphens=False)


def _print(console: Console, *spans: tuple[str, str]) -> None:
    console.print(Text.assemble(*spans), soft_wrap=True)


def _verdict(findings: Sequence[Finding]) -> str:
    counts = Counter(finding.level for finding in findings)
    faults, notes = (f"{counts[x] or 'no'} {x}{'s' * (counts[x] != 1)}" for x in ("fault", "note"))
    return f"{faults}, {notes}: a run would {'suffer' if counts['fault'] else 'do well'} here"
