"""What a run draws of itself while it trains: its curves, and the first batch as the network sees it.

They lie in the run directory (curves.png, first_batch.png) and among TensorBoard's images. Nothing of the training
depends on them: what cannot be drawn is said once.
"""

import io
import logging
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jaxnets import exit
from jaxnets.run.curves import draw, read_rows
from jaxnets.track.mirror import CURVES, FIRST_BATCH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.Image import Image

    from jaxnets.train.log import RunLog

_log = logging.getLogger(__name__)

_SHARE = 0.01  # of the session's time, that drawing curves may take
_PATIENCE = 20.0  # seconds at the end of a session, for the first batch to be drawn
_DOTS_PER_INCH = 110


class NoDrawings:
    """What the processes have that draw nothing."""

    def begin(self) -> None:
        """Draws the first batch, beside the training; at the second call and later ones nothing."""

    def evaluated(self, step: int, best_step: int | None) -> None:
        """Draws the curves after an evaluation, unless that was done a short while ago."""

    def close(self, step: int, best_step: int | None) -> None:
        """Draws the curves at the end of a session, unless nothing came after the last time."""


class Drawings(NoDrawings):
    """Draws into a run's log; `first_batch` makes the sheet of a run that begins, None for one that goes on."""

    def __init__(self, log: "RunLog", first_batch: "Callable[[], Image] | None") -> None:
        self._log, self._first_batch = log, first_batch
        self._thread: threading.Thread | None = None
        self._said: set[str] = set()
        self._next = 0.0  # when curves are drawn again, as time.monotonic counts
        self._rows = 0  # of the log, that the last drawing shows
        self._png: bytes | None = None  # the last drawing

    def begin(self) -> None:
        if self._first_batch is None or self._thread is not None:
            return
        # Compiling what prepares a batch takes about a second, and no step waits for it.
        self._thread = threading.Thread(target=self._draw_first_batch, name="first batch", daemon=True)
        self._thread.start()

    def evaluated(self, step: int, best_step: int | None) -> None:
        began = time.monotonic()
        if began >= self._next:
            self._draw_curves(best_step)
            self._next = time.monotonic() + (time.monotonic() - began) / _SHARE

    def close(self, step: int, best_step: int | None) -> None:
        if self._thread is not None:
            self._thread.join(_PATIENCE)
            if self._thread.is_alive():
                exit.end_at_once()
        if self._rows < self._log.written:
            self._draw_curves(best_step)
        if self._png is not None:
            with self._or_say(CURVES):
                self._log.image("curves", self._png, step)  # once a session: each of them is kept

    def _draw_first_batch(self) -> None:
        with self._or_say(FIRST_BATCH):
            assert self._first_batch is not None
            buffer = io.BytesIO()
            self._first_batch().save(buffer, "PNG")
            self._log.write_file(FIRST_BATCH, buffer.getvalue())
            self._log.image("first_batch", buffer.getvalue(), 1)

    def _draw_curves(self, best_step: int | None) -> None:
        with self._or_say(CURVES):
            self._rows = self._log.written
            figure = draw(read_rows(self._log.path), best_step)
            if figure is not None:
                from jaxnets import figures

                self._png = figures.png(figure, _DOTS_PER_INCH)
                self._log.write_file(CURVES, self._png)

    @contextmanager
    def _or_say(self, name: str) -> "Iterator[None]":
        """Makes a warning, the first time, of whatever prevents a drawing."""
        try:
            yield
        except Exception as error:
            if name not in self._said:
                self._said.add(name)
                reason = " ".join(str(error).split()) or type(error).__name__
                _log.warning("%s cannot be drawn (%s); training goes on without it", name, reason)
