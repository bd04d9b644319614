"""What an audit shows in a terminal: how far it is, and what it found."""

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from jaxnets import terminal
from jaxnets.audit.audit import Audit
from jaxnets.audit.classes import counts
from jaxnets.audit.verdict import verdict

_CLASSES = 30  # rows of the table of classes
_STYLES = {"problem": "bold red", "warning": "yellow", "note": "cyan"}


class Bar:
    """How far each phase is and how long it will take, in a terminal; elsewhere nothing."""

    def __init__(self, console: Console) -> None:
        self._console, self._phase = console, ""
        self._bar: Progress | None = None

    def update(self, phase: str, done: int, total: int) -> None:
        """Shows that so many images of a phase are done."""
        if not self._console.is_terminal:
            return
        if phase != self._phase:
            self.stop()
            self._phase = phase
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=self._console,
                auto_refresh=False,
                expand=True,
            )
            self._task = self._bar.add_task(phase, total=total)
            self._bar.start()
        if self._bar is not None:
            self._bar.update(self._task, completed=done)
            self._bar.refresh()

    def stop(self) -> None:
        """Leaves the terminal to others."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def show(audit: Audit, console: Console, out: Path) -> None:
    """Prints what was found: a table of the classes, one of the findings, and what they come to."""
    album = audit.album
    assert album is not None
    said = "; ".join((f"{audit.description}, {len(album):,} images", *audit.notes))
    console.print(f"data: {terminal.shown(said)}", soft_wrap=True)
    found = counts(album)
    table = Table("class", *album.splits)
    for number, name in enumerate(album.class_names[:_CLASSES]):
        table.add_row(terminal.shown(name), *(f"{n:,}" for n in found[:, number].tolist()))
    console.print(table)
    if len(album.class_names) > _CLASSES:
        console.print(f"and {len(album.class_names) - _CLASSES:,} classes more")
    if audit.findings:
        table = Table("", "found", "images", "for instance")
        for finding in audit.findings:
            if finding.cases:
                case = finding.cases[0]
                example = f"{album.name(case.examples[0])}: {case.text}"
            else:
                example = finding.lines[0]
            images = f"{len(finding.examples):,}" if finding.cases else ""
            style = _STYLES[finding.severity]
            table.add_row(Text(finding.severity, style), finding.title, images, terminal.shown(example))
        console.print(table)
    console.print(verdict(audit.findings), soft_wrap=True)
    console.print(f"written to {out / 'index.html'}, {out / 'audit.json'} and {out / 'sheets'}", soft_wrap=True)
