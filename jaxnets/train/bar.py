"""Progress bars: in a terminal, in a notebook, and none elsewhere."""

import html
import time
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_EVERY = 0.2  # seconds between two drawings in a notebook


class Bar(Protocol):
    def update(self, done: int, total: int, text: str = "") -> None:
        """Draws how much is done, and a text beside it."""
        ...

    def close(self) -> None: ...


def open_bar(console: Console, what: str, *, transient: bool = False) -> Bar | None:
    """Returns a bar, or None where the console shows none; a transient one leaves nothing behind."""
    if console.quiet:
        return None
    if console.is_jupyter:
        return NotebookBar(what)
    return TerminalBar(console, what, transient=transient) if console.is_terminal else None


class TerminalBar:
    def __init__(self, console: Console, what: str, *, transient: bool) -> None:
        self._bar = Progress(
            TextColumn(what),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            # Drawn from `update` alone: a thread that redraws would take its share of two cores.
            auto_refresh=False,
            expand=True,
            transient=transient,
        )
        self._task: Any = None

    def update(self, done: int, total: int, text: str = "") -> None:
        if self._task is None:
            self._task = self._bar.add_task("", total=total, completed=done, text=text)
            self._bar.start()
        self._bar.update(self._task, completed=done, total=total, text=text)
        self._bar.refresh()

    def close(self) -> None:
        if self._task is not None:
            self._bar.stop()


class NotebookBar:
    """Drawn in the output of the cell that runs, which shows nothing of a terminal's."""

    def __init__(self, what: str) -> None:
        self._what, self._drawn = what, 0.0
        self._handle: Any = None

    def update(self, done: int, total: int, text: str = "") -> None:
        now = time.monotonic()
        if done < total and now < self._drawn + _EVERY:
            return
        self._drawn = now
        plain = f"{self._what} {done:,}/{total:,}  {text}".rstrip()
        bar = f'<progress value="{done}" max="{total}" style="width: 40%"></progress>'
        shown = {"text/plain": plain, "text/html": f"<div>{bar} <code>{html.escape(plain)}</code></div>"}
        if self._handle is None:
            from IPython.display import display

            self._handle = display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)

    def close(self) -> None: ...
