"""What preparing shows: a bar with the time left in a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich import progress as rich
from rich.console import Console

from jaxnets import terminal

_EVERY = 30  # seconds between lines
_SHOWN = 20  # images that cannot be read, of which each is named at once


class Progress:
    """Counts images on a console."""

    def __init__(self, console: Console | None = None, what: str = "preparing") -> None:
        self._console = console or terminal.console()
        self._what = what
        self._bar: rich.Progress | None = None
        self._unreadable = 0

    @contextmanager
    def of(self, total: int) -> Iterator[None]:
        """Shows how far it is while the block lasts."""
        self._total, self._done = total, 0
        self._began = self._said = time.monotonic()
        if self._console.is_terminal:
            self._bar = rich.Progress(
                rich.TextColumn(self._what),
                rich.BarColumn(bar_width=None),
                rich.MofNCompleteColumn(),
                rich.TextColumn("{task.fields[figures]}", markup=False),
                rich.TimeRemainingColumn(),
                rich.TextColumn("left"),
                console=self._console,
                expand=True,
            )
            self._task = self._bar.add_task("", total=total, figures="")
            self._bar.start()
        try:
            yield
        finally:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def advance(self, images: int, unreadable: Sequence[str]) -> None:
        """Counts images, of which some cannot be read: why, a message for each."""
        for message in unreadable:
            self._unreadable += 1
            if self._unreadable <= _SHOWN:
                self.say(f"cannot be read: {terminal.shown(message)}")
            elif self._unreadable == _SHOWN + 1:
                self.say("cannot be read: more than these, which are counted at the end")
        self._done += images
        now = time.monotonic()
        speed = self._done / max(now - self._began, 1e-3)
        figures = f"{speed:,.0f} images/s" + (f"  {self._unreadable:,} unreadable" if self._unreadable else "")
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, figures=figures)
        elif now - self._said >= _EVERY:
            self._said = now
            left = (self._total - self._done) / speed
            self.say(f"{self._what}: {self._done:,} of {self._total:,} images, {figures}, {left / 60:.0f} min left")

    def say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)
