"""What a run shows while it trains: a live bar in a terminal, plain lines elsewhere."""

import os
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jaxnets.config import Config
from jaxnets.schema import flatten


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Falls silent where nobody reads any more, as after Ctrl-C in `… | tee`; the run goes on, or is saved."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Display:
    """Shows a run's progress on `console`, or with `quiet` nothing."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self._console = console or _Console(highlight=False, quiet=quiet)
        self._bar: Progress | None = None

    def config(self, config: Config) -> None:
        table = Table(title="Configuration", show_header=False, title_justify="left")
        for key, value in flatten(config).items():
            table.add_row(key, "—" if value is None else str(value))
        self._console.print(table)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def start(self, step: int, steps: int) -> None:
        if not self._console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            # Drawn from `update` alone: a thread that redraws would take its share of two cores.
            auto_refresh=False,
            expand=True,
        )
        self._task = self._bar.add_task("", total=steps, completed=step, figures="compiling …")
        self._bar.start()
        self._bar.refresh()

    def update(self, step: int, loss: float, accuracy: float, images_per_second: float | None) -> None:
        if self._bar is not None:
            figures = f"loss {loss:.3f}  accuracy {accuracy:.1%}"
            if images_per_second is not None:
                figures += f"  {images_per_second:,.0f} images/s"
            self._bar.update(self._task, completed=step, figures=figures)
            self._bar.refresh()

    def row(self, step: int, steps: int, epoch: float, values: Mapping[str, Any]) -> None:
        """Shows a row of metrics.jsonl; the training rows only where there is no bar."""
        if self._bar is not None and any(key.startswith("train/") for key in values):
            return
        what = values.get("eval/split") or next(iter(values)).partition("/")[0]
        figures = {key.partition("/")[2]: value for key, value in values.items() if not key.endswith("/split")}
        shown = "  ".join(f"{key} {_figure(key, value)}" for key, value in figures.items())
        self.say(f"step {step:>{len(str(steps))}}/{steps}  epoch {epoch:6.2f}  {what}: {shown}")

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _figure(key: str, value: Any) -> str:
    if not isinstance(value, float):
        return "—" if value is None else f"{value:,}"
    if key in ("accuracy", "top5"):
        return f"{value:.2%}"
    return f"{value:,.0f}" if key == "images_per_second" else f"{value:.4g}"
