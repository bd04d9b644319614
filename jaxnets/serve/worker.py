"""What a process knows that answers beside others: which it is, and the line to the process that began it."""

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from jaxnets.serve.limits import Limits


@dataclass(frozen=True)
class Worker:
    """One of several processes that share a port."""

    number: int  # from 1 on; whoever replaces it has it too
    count: int
    port: int
    line: int  # file descriptor: says once that this worker answers; its other end closes when it shall stop

    @classmethod
    def parse(cls, text: str) -> "Worker":
        return cls(*map(int, text.split(":")))

    def __str__(self) -> str:
        return f"{self.number}:{self.count}:{self.port}:{self.line}"

    @property
    def shared(self) -> Path:
        """The folder of all workers, which ends with them; the process that began them has made it."""
        return Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])

    def part(self, limits: Limits) -> Limits:
        """Returns a worker's part of what may wait in the whole service."""
        return replace(limits, queue=-(-limits.queue // self.count), burst=-(-limits.burst // self.count))

    def answers(self, names: str) -> None:
        """Tells the process that began it that this one answers under these names."""
        os.write(self.line, f"{names}\n".encode())

    def watch(self, stop: Callable[[], None]) -> None:
        """Calls `stop` on the running loop, once, when that process wants it or is gone."""
        loop = asyncio.get_running_loop()

        def closed() -> None:
            loop.remove_reader(self.line)
            stop()

        loop.add_reader(self.line, closed)

    def sign_log(self) -> None:
        """Says in each line of the log of whom it is."""
        for handler in logging.getLogger().handlers:
            handler.setFormatter(logging.Formatter(f"%(levelname)s: worker {self.number}: %(message)s"))
