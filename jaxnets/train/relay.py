"""Carries what this process and the coordination service of process 0 say to each other, and notices when that is gone.

JAX's client aborts its process, with a stack trace in place of a message, at the moment its connection to process 0
breaks, and jaxlib offers no way to catch that. So it speaks to a socket of its own process, which stays open: where
process 0 has gone, `lost` hears of it and can end this process properly.
"""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from jaxnets.errors import UserError

_RETRY = 0.2  # seconds between two attempts to reach process 0
_ATTEMPT = 10.0  # seconds that one may last
# A host that lost its power or its network closes no connection: it is asked, and given up after about a minute.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 60_000}


class Relay:
    """Give JAX `address` in place of HOST:PORT; `lost` is called in a thread, unless `close` was called before."""

    def __init__(self, host: str, port: int, lost: Callable[[], None]) -> None:
        self._service, self._lost = (host, port), lost
        self.obstacle: str | None = "no attempt was made yet"  # to reaching process 0; None once it was reached
        self._closed = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)  # no proxy is ever asked for it, as one might be for a port
        try:
            self._folder = TemporaryDirectory(prefix="jaxnets-", ignore_cleanup_errors=True)
            self._listener.bind(str(Path(self._folder.name) / "relay"))
        except OSError as error:
            raise UserError(
                f"several processes need a socket in the folder for temporary files, which cannot be made ({error}): "
                f"set TMPDIR to a folder that can be written to and has a short name"
            ) from error
        self._listener.listen()
        self.address = f"unix:{self._listener.getsockname()}"
        self._start(self._accept)

    def keep_only_what_is_open(self) -> None:
        """Takes no further connections; JAX needs none once it has joined."""
        _end(self._listener)
        self._folder.cleanup()

    def close(self) -> None:
        """Lets process 0 go without a word."""
        self._closed.set()

    def _accept(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                self._start(self._carry, self._listener.accept()[0])

    def _carry(self, client: socket.socket) -> None:
        service = self._reach()
        if service is None:
            client.close()
            return
        left = threading.Event()  # the client did, to connect anew: no sign of process 0's end

        def requests() -> None:
            if _pump(client, service) is client:
                left.set()
            _end(service)

        self._start(requests)
        if _pump(service, client) is service and not left.is_set() and not self._closed.is_set():
            self._lost()  # with the client's connection still open
        _end(client)

    def _reach(self) -> socket.socket | None:
        while not self._closed.is_set():
            try:
                service = socket.create_connection(self._service, _ATTEMPT)
            except OSError as error:
                self.obstacle = error.strerror or str(error)
                time.sleep(_RETRY)
                continue
            self.obstacle = None
            service.settimeout(None)
            service.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            service.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEP_ALIVE.items():
                if hasattr(socket, name):  # Linux
                    service.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            return service
        return None

    def _start(self, body: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=body, args=arguments, name="jaxnets: relay", daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> socket.socket:
    """Carries what comes from `source` to `sink`, and returns the one of them that ended."""
    while True:
        try:
            data = source.recv(1 << 16)
        except OSError:
            return source
        if not data:
            return source
        try:
            sink.sendall(data)
        except OSError:
            return sink


def _end(connection: socket.socket) -> None:
    """Ends what another thread may be waiting for."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
