"""The process around the application: its socket, its signals, and its end."""

import asyncio
import contextlib
import errno
import gc
import logging
import resource
import signal
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from jaxnets.errors import UserError
from jaxnets.serve.connection import make_protocol
from jaxnets.serve.limits import Limits

_log = logging.getLogger(__name__)

_KEEP_ALIVE = 20  # seconds that an idle connection stays open
_FAREWELL = 0.5  # seconds in which open connections learn of the end by an answer, not by a reset
_FILES = 64  # file descriptors besides the connections'


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that is bound, so that a port in use is known before a model is loaded.

    Raises:
        UserError: if it cannot be bound.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port must be 0 (any that is free) to 65535, found {port}")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError, OverflowError) as error:
        raise UserError(f"--host {host} --port {port} is no address ({error}): give one of this machine's") from error
    bound = socket.socket(family, kind)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except (OSError, OverflowError) as error:
        bound.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} of {host} is in use: end what uses it, or give another --port") from error
        raise UserError(f"port {port} of {host} cannot be taken ({error}): give another --port or --host") from error
    return bound


def serve(app: FastAPI, listening: socket.socket, limits: Limits) -> None:
    """Answers requests until SIGTERM or SIGINT, and then until what was accepted is answered."""
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
    _Server(config, app, limits.timeout).run(sockets=[listening])


def _connections(wanted: int) -> int:
    """Raises the limit of open files for so many connections, and returns how many there can be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted + _FILES if hard == resource.RLIM_INFINITY else min(wanted + _FILES, hard)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(min(wanted, most - _FILES), 1)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: FastAPI, seconds: float) -> None:
        super().__init__(config)
        self._app = app
        self._seconds = seconds  # until those in flight have had all their time

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
            self.force_exit = True
            return
        _log.info("stopping: %d requests are in flight; once more ends at once", self._app.state.running)
        self._app.state.stopping = True
        self.should_exit = True

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
