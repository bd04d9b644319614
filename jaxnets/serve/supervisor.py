"""Several processes that answer at one port: they are begun, replaced when they end, and ended together.

Each listens at a socket of its own that shares the port (SO_REUSEPORT), and Linux deals the connections out by a hash
of their addresses. Of 64 that came at once at two processes, one got at most 39; from one socket that both had
inherited it took up to 63, since whoever wakes first accepts all that wait, and keeps them as long as they last. The
price is that few connections may fall unevenly (all of 6 to one, once in 32 times), and that what waits at the socket
of a process that is killed is reset with it. One that ends in order answers what waits before it closes its socket.

This process has no JAX in it: the others are new ones and not forks.
"""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

from prometheus_client.multiprocess import mark_process_dead

from jaxnets.cores import share_of
from jaxnets.errors import UserError
from jaxnets.serve.listening import reserve, serving
from jaxnets.serve.worker import Worker

_log = logging.getLogger(__name__)

_STEADY = 10.0  # seconds that a worker answers, after which its end is no reason to wait with the next
_PAUSES = (1.0, 60.0)  # seconds until one is replaced that ended earlier: the first time, and at most
_METERS = "PROMETHEUS_MULTIPROC_DIR"


def supervise(command: Sequence[str], count: int, host: str, port: int) -> int:
    """Keeps some workers (`Supervisor`) at a port, and returns the status of the whole after its end.

    Raises:
        UserError: if there cannot be so many, or the port is in use.
    """
    if count < 1:
        raise UserError(f"--workers must be at least 1, found {count}")
    if sys.platform != "linux":
        raise UserError(f"--workers {count} needs Linux, which deals connections out, found {sys.platform}")
    with reserve(host, port) as reserved:

        def ready(names: str) -> None:
            print(serving(names, reserved), flush=True)

        return asyncio.run(Supervisor(command, count, reserved.getsockname()[1], ready).run())


class Supervisor:
    """Keeps some workers.

    Args:
        command: begins a worker, given its place (`Worker`) as one more argument.
        count: of workers.
        port: that they share.
        ready: is called with the names that are served once the first worker answers.
    """

    def __init__(self, command: Sequence[str], count: int, port: int, ready: Callable[[str], None]) -> None:
        self._command, self._count, self._port, self._ready = command, count, port, ready
        self._running: dict[int, _Running] = {}
        self._stopping = asyncio.Event()
        self._status = 0
        self._meters = ""

    async def run(self) -> int:
        """Returns the status of the whole, after its end: 0, or that of a worker that could not begin.

        The first begins alone: what it compiles the others find, and what it cannot read it says once.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        with _temporary() as self._meters:
            first = self._begin(1)
            names = await first.names
            if names is not None and not self._stopping.is_set():
                self._ready(names)
            others = range(2, self._count + 1) if names is not None else ()
            await asyncio.gather(self._keep(first), *(self._keep(self._begin(number)) for number in others))
        return self._status

    async def _keep(self, running: "_Running") -> None:
        """Waits for a worker's end, and replaces it and those that replace it."""
        loop, pause, begun = asyncio.get_running_loop(), 0.0, False
        while True:
            names = await running.names
            since = loop.time()
            status = await running.ended()
            number = running.worker.number
            del self._running[number]
            mark_process_dead(number, self._meters)
            if self._stopping.is_set():
                if status > 0 and not self._status:
                    self._status = status
                return
            begun = begun or names is not None
            if not begun and status > 0:
                self._status = status  # it has said why
                self._stop()
                return
            steady = names is not None and loop.time() - since > _STEADY
            pause = 0.0 if steady else min(max(2 * pause, _PAUSES[0]), _PAUSES[1])
            _log.warning("worker %d %s; another begins%s", number, _said(status), f" in {pause:g} s" if pause else "")
            if await _is_set(self._stopping, pause):
                return
            running = self._begin(number)

    def _begin(self, number: int) -> "_Running":
        running = _Running(
            self._command,
            Worker(number, self._count, self._port, -1),
            {**os.environ, **share_of(number - 1, self._count), _METERS: self._meters},
        )
        self._running[number] = running
        if self._stopping.is_set():
            running.stop()
        return running

    def _stop(self) -> None:
        if self._stopping.is_set():
            for running in self._running.values():
                running.kill()
            return
        self._stopping.set()
        for running in self._running.values():
            running.stop()


class _Running:
    """A worker's process, and this end of the line to it."""

    def __init__(self, command: Sequence[str], worker: Worker, environment: dict[str, str]) -> None:
        self._line, theirs = socket.socketpair()
        with theirs:
            self.worker = Worker(worker.number, worker.count, worker.port, theirs.fileno())
            # A group of its own: Ctrl-C in a terminal is for the supervisor, which hands it on once.
            self._process = subprocess.Popen(
                [*command, str(self.worker)], env=environment, pass_fds=[theirs.fileno()], process_group=0
            )
        self._line.setblocking(False)
        self.names = asyncio.ensure_future(self._read())

    async def _read(self) -> str | None:
        """Returns the names that are served once the worker answers, None if it ends before."""
        said = b""
        while not said.endswith(b"\n"):
            try:
                more = await asyncio.get_running_loop().sock_recv(self._line, 4096)
            except OSError:
                return None
            if not more:
                return None
            said += more
        return said.decode().strip()

    async def ended(self) -> int:
        """Returns the status of its end, less than 0 the signal that ended it."""
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        descriptor = os.pidfd_open(self._process.pid)
        try:
            loop.add_reader(descriptor, gone.set)
            await gone.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        self._line.close()
        return self._process.wait()

    def stop(self) -> None:
        """Lets it answer what it has accepted; where it has not begun to answer, it ends at once."""
        if self.names.done():
            self._line.shutdown(socket.SHUT_RDWR)
        else:
            self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _temporary() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="jaxnets-meters-")
    except OSError as error:
        raise UserError(
            f"several workers need a folder for the figures of /metrics ({error}): let TMPDIR name one that can be "
            "written to"
        ) from error


def _said(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


async def _is_set(event: asyncio.Event, seconds: float) -> bool:
    """Waits for an event, no longer than some seconds; says whether it is set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
    return event.is_set()
