"""The wish to leave before the end, of a signal or of the clock, and work that can be left behind for it."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from jaxnets import exit
from jaxnets.errors import TEMPORARY

_LEAST_MARGIN, _MOST_MARGIN = 0.1, 120.0  # share of the time, and seconds, that are kept for saving
_POLL = 0.05  # seconds
_AT_ONCE = 1.0  # seconds in which a second signal is the first one again: some send it to the process and to its group

_T = TypeVar("_T")


class Stopped(Exception):
    """Something was left behind because the run was asked to stop."""


class Stop:
    """False until the run should leave. The clock runs from `started`, as `time.monotonic` counts.

    Some of `max_hours` is kept for saving: a tenth, at most two minutes, but at least twice as long as `expect_save`
    was given.
    """

    def __init__(self, max_hours: float | None = None, started: float | None = None) -> None:
        self.signal: int | None = None
        self._heard = False
        self._end = None
        if max_hours is not None:
            seconds = 3600 * max_hours
            self._end = (time.monotonic() if started is None else started) + seconds
            self._margin = min(_LEAST_MARGIN * seconds, _MOST_MARGIN)

    def __bool__(self) -> bool:
        return self._heard or self.signal is not None or self.out_of_time

    @property
    def out_of_time(self) -> bool:
        return self._end is not None and time.monotonic() > self._end - self._margin

    @property
    def status(self) -> int:
        """The exit status that says why."""
        return TEMPORARY if self.signal is None else 128 + self.signal

    def heard(self, number: int | None) -> None:
        """Takes over the wish of another process: its signal, or None where its time is over."""
        self.signal, self._heard = number, True

    def expect_save(self, seconds: float) -> None:
        """Learns how long saving may last."""
        if self._end is not None:
            self._margin = max(self._margin, 2 * seconds)


@contextmanager
def listening(stop: Stop, say: Callable[[str], None]) -> Iterator[None]:
    """Notes SIGINT and SIGTERM in `stop`; a second one later is a KeyboardInterrupt. `say` is called at the first."""
    first: float | None = None  # when this process got one; it may have heard of another's before

    def receive(number: int, frame: Any) -> None:
        nonlocal first
        if first is not None:
            if time.monotonic() > first + _AT_ONCE:
                raise KeyboardInterrupt
            return
        stop.signal, first = number, time.monotonic()
        say("stopping: the run is saved first; once more ends it at once")

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def unless(stop: Stop, work: Callable[[], _T]) -> _T:
    """Returns `work()`, which runs in a thread, so that this one hears signals while a compiler has the other.

    Raises:
        Stopped: when `stop` comes first; the thread is left behind.
    """
    results: list[_T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, name="jaxnets: work", daemon=True)
    thread.start()
    while thread.is_alive() and not stop:
        thread.join(_POLL)
    if errors:
        raise errors[0]
    if results:
        return results[0]
    exit.end_at_once()
    raise Stopped
