"""SIGINT and SIGTERM as a wish to stop that the loop can grant when it suits."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def listen_for_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM in a list, for the loop to stop at; a second one ends the program at once."""
    received: list[int] = []

    def receive(number: int, frame: Any) -> None:
        if received:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        received.append(number)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
