"""Batches made ahead of whoever takes them, by threads that fill their rows."""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from jaxnets.data.batch import Batch

_AT_ONCE = 8  # rows that a thread takes at a time, at most
_JOIN_SECONDS = 1.0  # that closing waits for a thread; one that hangs in a file system is left behind


class Assembly(Protocol):
    """A batch in the making. Rows are filled in any order and by any thread, each once."""

    @property
    def rows(self) -> int: ...
    def fill(self, row: int) -> None: ...
    def batch(self) -> Batch:
        """Returns the batch; all rows are filled."""
        ...


class Loader(Iterator[Batch]):
    """Yields the batches that `begin` begins, in order, made by `threads` threads, or without any when it is asked.

    At most `ahead` are begun and not yet taken. An error of a row is raised in place of its batch, that of the first
    row where several fail, and ends it all. Threads end when the loader is closed, forgotten or done.
    """

    def __init__(self, begin: Callable[[int], Assembly], start: int, stop: int, *, threads: int, ahead: int) -> None:
        self._work = _Work(begin, start, stop, max(ahead, 1))
        self._threads = [threading.Thread(target=self._work.run, daemon=True) for _ in range(threads)]
        # The threads hold the work and not the loader, so that one which nobody holds ends them. At the interpreter's
        # end they must be done: one that is stopped inside a decoder takes the process down with it.
        self._end = weakref.finalize(self, _end, self._work, self._threads)
        for thread in self._threads:
            thread.start()

    def __next__(self) -> Batch:
        while not self.ready(None):
            pass
        return self._work.take()

    def ready(self, seconds: float | None) -> bool:
        """Waits for the next batch, at most so long; returns whether `next` would give it, or raise, at once."""
        if not self._threads:
            self._work.run(batches=1)
        return self._work.wait(seconds)

    def close(self) -> None:
        """Ends the threads; what they were making is lost."""
        self._end()


def _end(work: "_Work", threads: list[threading.Thread]) -> None:
    work.end()
    for thread in threads:
        if thread is not threading.current_thread():  # which may be the one that forgets the loader
            thread.join(_JOIN_SECONDS)


class _Begun:
    """A batch that is begun, and how far it is."""

    def __init__(self, assembly: Assembly) -> None:
        self.assembly = assembly
        self.next_row = 0  # that nobody has taken
        self.missing = assembly.rows  # that are not filled
        self.failed_row = assembly.rows  # the first that raised
        self.error: BaseException | None = None


class _Work:
    """What the threads and the taker share, under one lock."""

    def __init__(self, begin: Callable[[int], Assembly], start: int, stop: int, ahead: int) -> None:
        self._begin, self._next, self._stop, self._ahead = begin, start, stop, ahead
        self._left = stop - start  # batches that are not taken
        self._begun = deque[_Begun]()
        self._changed = threading.Condition()
        self._ended = False

    def run(self, batches: int | None = None) -> None:
        """Fills rows until all are done or it is ended; or, if asked so, until that many batches wait to be taken."""
        while (claimed := self._claim(batches)) is not None:
            begun, rows = claimed
            failed, error = begun.assembly.rows, None
            for row in rows:
                try:
                    begun.assembly.fill(row)
                except BaseException as raised:
                    failed, error = row, raised
                    break
            with self._changed:
                begun.missing -= len(rows)
                if failed < begun.failed_row:
                    begun.failed_row, begun.error = failed, error
                    self._stop = self._next  # whatever comes after it is never asked for
                if not begun.missing:
                    self._changed.notify_all()

    def _claim(self, batches: int | None) -> tuple[_Begun, range] | None:
        """Returns rows that are this thread's to fill, waiting for some where all that may be begun is."""
        with self._changed:
            while not self._ended:
                for begun in self._begun:
                    rows = begun.assembly.rows
                    if begun.next_row < rows:
                        first = begun.next_row
                        begun.next_row = min(rows, first + _AT_ONCE)
                        return begun, range(first, begun.next_row)
                if self._next >= self._stop or (batches is not None and len(self._begun) >= batches):
                    return None
                if len(self._begun) < self._ahead:
                    number = self._next
                    self._next += 1
                    try:
                        self._begun.append(_Begun(self._begin(number)))
                    except BaseException as error:
                        self._fail(error)
                        return None
                else:
                    self._changed.wait()
            return None

    def _fail(self, error: BaseException) -> None:
        failed = _Begun(_Nothing())
        failed.error, failed.missing = error, 0
        self._begun.append(failed)
        self._stop = self._next
        self._changed.notify_all()

    def wait(self, seconds: float | None) -> bool:
        with self._changed:
            return self._changed.wait_for(self._ready, seconds)

    def _ready(self) -> bool:
        return self._ended or not self._left or (bool(self._begun) and not self._begun[0].missing)

    def take(self) -> Batch:
        with self._changed:
            if self._ended or not self._left:
                raise StopIteration
            begun = self._begun.popleft()
            self._left -= 1
            self._changed.notify_all()
        if begun.error is not None:
            self.end()
            raise begun.error
        return begun.assembly.batch()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._begun.clear()
            self._changed.notify_all()


class _Nothing:
    """Stands for a batch that could not be begun."""

    rows = 0

    def fill(self, row: int) -> None:
        raise AssertionError("it has no rows")

    def batch(self) -> Batch:
        raise AssertionError("it is never taken")
