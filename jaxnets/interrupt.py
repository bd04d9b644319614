"""Ctrl-C in a command: one word, no traceback, and never lost."""

import _thread
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager

STATUS = 128 + signal.SIGINT
_AGAIN = 0.01  # seconds


class Interruption:
    """Whether Ctrl-C was heard, while `listening`.

    Python raises a KeyboardInterrupt wherever it happens to be. Within a callback from C it is dropped, so it is raised
    again; within an import it may crash an extension module, so the process ends there, where nothing has begun yet.
    """

    def __init__(self) -> None:
        self.heard = False
        self._repeats = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        if not _is_ours():
            yield
            return
        before, hook = signal.signal(signal.SIGINT, self._hear), sys.unraisablehook
        sys.unraisablehook = self._dropped
        try:
            yield
        finally:
            sys.unraisablehook = hook
            signal.signal(signal.SIGINT, before)

    def _hear(self, number: int, frame: types.FrameType | None) -> None:
        self.heard = True
        # Where it was dropped it would be dropped once more.
        if all(caller.f_code is not self._dropped.__code__ for caller in _callers(frame)):
            self._repeats = False
            _interrupt(number, frame)

    def _dropped(self, unraisable: "sys.UnraisableHookArgs") -> None:
        if unraisable.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(unraisable)
            return
        self._repeats = True
        # Not threading's, whose locks the main thread may hold where it was interrupted.
        _thread.start_new_thread(self._repeat, ())

    def _repeat(self) -> None:
        while True:
            time.sleep(_AGAIN)
            if not self._repeats:
                return
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def prepare() -> None:
    """Takes Ctrl-C over in a process that is a command of ours, for the time until it listens: that of its imports."""
    main = getattr(sys.modules.get("__main__"), "__spec__", None)  # of python -m jaxnets.…
    if main is not None and main.name.partition(".")[0] == "jaxnets" and _is_ours():
        signal.signal(signal.SIGINT, _interrupt)
        sys.excepthook = _quietly


def say() -> None:
    """Says it, past whatever Python was about to write when it was interrupted."""
    os.write(2, b"interrupted\n")


def _is_ours() -> bool:
    """Says whether Ctrl-C is for this thread to hear; it may be ignored, as behind nohup, or somebody else's."""
    free = signal.getsignal(signal.SIGINT) in (signal.default_int_handler, _interrupt)
    return free and threading.current_thread() is threading.main_thread()


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    if any(caller.f_globals.get("__name__") == "importlib._bootstrap" for caller in _callers(frame)):
        say()
        os._exit(STATUS)
    raise KeyboardInterrupt


def _callers(frame: types.FrameType | None) -> Iterator[types.FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _quietly(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        say()
    else:
        sys.__excepthook__(kind, error, trace)
