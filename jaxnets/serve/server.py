"""The process around the application: its socket, its signals, and its end."""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from jaxnets.serve.connection import make_protocol
from jaxnets.serve.limits import Limits
from jaxnets.serve.worker import Worker

_log = logging.getLogger(__name__)

_KEEP_ALIVE = 20  # seconds that an idle connection stays open
_FAREWELL = 0.5  # seconds in which open connections learn of the end by an answer, not by a reset
_FILES = 64  # file descriptors besides the connections'


def serve(
    app: FastAPI, listening: socket.socket, limits: Limits, worker: Worker | None = None, names: str = ""
) -> None:
    """Answers requests until SIGTERM or SIGINT, and then until what was accepted is answered.

    A worker among several says so under some names once it answers, and ends likewise when it is told to.
    """
    config = uvicorn.Config(
        app,
        http=make_protocol(seconds=limits.timeout, most=_connections(limits.max_connections)),
        loop="auto",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=2048,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=None,
    )
    # What was made so far stays: to look through all of it for garbage, again and again, would hold requests up.
    gc.collect()
    gc.freeze()
    _Server(config, app, limits.timeout, worker, names).run(sockets=[listening])


def _connections(wanted: int) -> int:
    """Raises the limit of open files for so many connections, and returns how many there can be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted + _FILES if hard == resource.RLIM_INFINITY else min(wanted + _FILES, hard)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(min(wanted, most - _FILES), 1)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: FastAPI, seconds: float, worker: Worker | None, names: str) -> None:
        super().__init__(config)
        self._app = app
        self._seconds = seconds  # until those in flight have had all their time
        self._worker = worker
        self._names = names

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own ends with the signal raised anew, and this process with a status that is not 0.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        yield
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    def _stop(self) -> None:
        if self.should_exit:
            # A worker may be told twice, by a service manager's signal and by the process that began it, which is the
            # one to end it at once.
            self.force_exit = self._worker is None
            return
        _log.info("stopping: %d requests are in flight; once more ends at once", self._app.state.running)
        self._app.state.stopping = True
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._worker is not None:
            self._worker.watch(self._stop)
            self._worker.answers(self._names)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        while not self.force_exit and loop.time() - start < 2 * self._seconds:
            if not self._app.state.running and loop.time() - start > _FAREWELL:
                break
            await asyncio.sleep(0.05)
        # Whoever connected before the door closed is still answered.
        for server in self.servers:
            server.close()
        await asyncio.sleep(0.1)
        await super().shutdown(sockets)
