"""How the process ends once its work is done: in order, or at once because other threads can't be waited for."""

import os
import signal
import sys
import threading
from typing import NoReturn

_at_once = threading.Event()


def end_at_once() -> None:
    """Lets `end` end the process at once: an orderly end would tear threads at work to pieces, or wait for them."""
    _at_once.set()


def forget() -> None:
    """Takes `end_at_once` back, for what follows in the same process."""
    _at_once.clear()


def end(status: int) -> NoReturn:
    """Ends the process with `status`."""
    if _at_once.is_set():
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while Python tidies up ends it without a traceback
    sys.exit(status)
