"""Ctrl-C in a command: one word, no traceback, and never lost."""

import os
import signal
import sys
import threading
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

    @contextmanager
    def listening(self) -> Iterator[None]:
        before = signal.getsignal(signal.SIGINT)
        if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
            yield  # it is ignored, as behind nohup, or somebody else's
            return
        hook = sys.unraisablehook
        signal.signal(signal.SIGINT, self._hear)
        sys.unraisablehook = self._dropped
        try:
            yield
        finally:
            sys.unraisablehook = hook
            signal.signal(signal.SIGINT, before)

    def _hear(self, number: int, frame: types.FrameType | None) -> None:
        self.heard = True
        while frame is not None:
            if frame.f_globals.get("__name__") == "importlib._bootstrap":
                say()
                os._exit(STATUS)
            frame = frame.f_back
        raise KeyboardInterrupt

    def _dropped(self, unraisable: "sys.UnraisableHookArgs") -> None:
        if unraisable.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(unraisable)
            return
        # Not at once: it would be raised here, and be dropped again.
        again = threading.Timer(_AGAIN, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
        again.daemon = True
        again.start()


def say() -> None:
    """Says it, past whatever Python was about to write when it was interrupted."""
    os.write(2, b"interrupted\n")


def quietly(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    """An excepthook for what is raised before a command has begun to listen, while its modules are imported."""
    if issubclass(kind, KeyboardInterrupt):
        say()
    else:
        sys.__excepthook__(kind, error, trace)
