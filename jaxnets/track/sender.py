"""The thread that keeps a mirror up to date while a run trains: no step waits for it, and it can fail no run."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from jaxnets import exit
from jaxnets.errors import UserError
from jaxnets.track.mirror import Abandoned, Mirror
from jaxnets.track.tracker import Ended

_log = logging.getLogger(__name__)

PATIENCE = 15.0  # seconds at the end of a session, for all trackers together
_LOOK = 1.0  # seconds between looks whether a checkpoint is written to its end
_AGAIN, _LATEST = 30.0, 600.0  # seconds after which a failure is tried again: doubled each time, up to the latest


class Sender:
    """Sends what checkpoints cover; what waits to be sent lies in the run directory, so that no queue can grow.

    Args:
        mirror: of the run.
        newest: returns the newest step whose checkpoint is safely there.
        say: tells people where the run is to be seen.
        command: that sends later what could not be sent.
    """

    def __init__(self, mirror: Mirror, newest: Callable[[], int], say: Callable[[str], None], command: str) -> None:
        self._mirror, self._newest, self._say, self._command = mirror, newest, say, command
        self._marks: list[tuple[int, int]] = []  # lines of metrics.jsonl, and the step whose checkpoint covers them
        self._lines = 0  # that are safe to send
        self._wake, self._lock = threading.Event(), threading.Lock()
        self._ended: tuple[Ended, str] | None = None
        self._failures, self._next = 0, 0.0
        self._problem: str | None = None  # of the last attempt
        self._told = False
        self._thread = threading.Thread(target=self._run, name=f"sender: {mirror.destination.place}", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def covered(self, lines: int, step: int) -> None:
        """Tells that the first `lines` of metrics.jsonl are safe once the checkpoint of `step` is."""
        with self._lock:
            self._marks = [*self._marks[-50:], (lines, step)]
        self._wake.set()

    def close(self, lines: int | None, ended: Ended, why: str, deadline: float) -> None:
        """Sends the rest, by `deadline` as `time.monotonic` counts; `lines` are safe now, None: those that were."""
        if lines is not None:
            with self._lock:
                self._marks, self._lines = [], lines
        self._ended = ended, why
        self._wake.set()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._mirror.abandoned = True
            exit.end_at_once()  # or Python, and the service's own library, would wait for it
            self._problem = self._problem or "it is slow, or hangs"
        if self._problem is not None:
            self._say_what_is_lost()

    def _run(self) -> None:
        wait: float | None = 0.0
        while True:
            self._wake.wait(wait)
            self._wake.clear()
            ended = self._ended  # before the marks are looked at, so that none comes after
            uncovered = self._advance()
            now = time.monotonic()
            if ended is not None or now >= self._next:
                self._attempt(ended)
            if ended is not None:
                return
            failing = self._next - time.monotonic() if self._problem is not None else None
            wait = _LOOK if uncovered else failing if failing is None else max(failing, _LOOK)

    def _advance(self) -> bool:
        """Moves on to what is covered by now; returns whether something is not."""
        with self._lock:
            marks = list(self._marks)
        if not marks:
            return False
        newest = -1
        with suppress(UserError, OSError):  # a network that comes back
            newest = self._newest()
        with self._lock:
            safe = [lines for lines, step in self._marks if step <= newest]
            self._marks = [mark for mark in self._marks if mark[1] > newest]
            self._lines = max([self._lines, *safe])
            return bool(self._marks)

    def _attempt(self, ended: tuple[Ended, str] | None) -> None:
        try:
            first = not self._told and self._mirror.open()
            if first:
                self._told = True
                self._say(f"{self._mirror.destination.title}: {first.address}")
            self._mirror.sync(self._lines, final=ended is not None)
            if ended is not None:
                self._mirror.close(*ended)
        except Abandoned:
            return
        except BaseException as error:  # whatever a service's library raises, SystemExit too: no run ends of it
            self._failed(error)
            return
        self._failures, self._next, self._problem = 0, 0.0, None

    def _failed(self, error: BaseException) -> None:
        first, self._problem = self._failures == 0 and self._next == 0.0, reason(error)
        self._next = time.monotonic() + min(_AGAIN * 2 ** min(self._failures, 10), _LATEST)
        self._failures += 1
        if first and self._ended is None:
            _log.warning(
                "%s: %s; training goes on, and rows are sent when it works again, or later by %s",
                self._mirror.destination.title,
                self._problem,
                self._command,
            )

    def _say_what_is_lost(self) -> None:
        try:
            lacking, rows = self._mirror.lacking(self._lines)
        except (UserError, OSError) as error:
            lacking, rows = 0, 0
            _log.warning("%s", error)
        what = f"{lacking} of {rows} rows were not sent" if lacking else "the last images, or its end, were not sent"
        _log.warning(
            "%s: %s (%s); nothing is lost, %s sends them%s",
            self._mirror.destination.title,
            what,
            self._problem,
            self._command,
            self._mirror.destination.own_files,
        )


_REASONS = {  # in what libraries say
    "Connection refused": "the connection is refused",
    "timed out": "it does not answer in time",
    "Name or service not known": "there is no such host",
    "Temporary failure in name resolution": "there is no such host, or no network",
    "Failed to resolve": "there is no such host, or no network",
    "Network is unreachable": "there is no network",
    "filesystem tracking backend": "it takes no folder (give sqlite:///FILE, or set MLFLOW_ALLOW_FILE_STORE=true)",
    "readonly database": "it is read-only",
    "unable to open database file": "there is no such folder, or it cannot be written to",
}


def reason(error: BaseException) -> str:
    """Returns why something failed, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    for part, meaning in _REASONS.items():
        if part in text:
            return meaning
    return text if len(text) <= 300 else f"{text[:297]}…"
