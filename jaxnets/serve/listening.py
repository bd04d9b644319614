"""The socket that requests come to."""

import errno
import socket

from jaxnets.errors import UserError


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Returns a socket that is bound, so that a port in use is known before a model is loaded.

    Where it is `shared`, more processes of the same user may bind it so, and each that listens gets its part of the
    connections.

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
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind(address)
    except (OSError, OverflowError) as error:
        bound.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} of {host} is in use: end what uses it, or give another --port") from error
        raise UserError(f"port {port} of {host} cannot be taken ({error}): give another --port or --host") from error
    return bound


def reserve(host: str, port: int) -> socket.socket:
    """Returns a bound socket that keeps a port for those who share it, and is never listened at itself.

    Raises:
        UserError: if the port is in use, by others who share it among themselves too.
    """
    with listen(host, port) as alone:  # which those who share a port would not exclude
        port = alone.getsockname()[1]
    return listen(host, port, shared=True)


def serving(names: str, bound: socket.socket) -> str:
    """Returns what the terminal says once requests may come."""
    address, port = bound.getsockname()[:2]
    host = f"[{address}]" if ":" in address else address
    return f"serving {names} at http://{host}:{port}  (how to ask: /docs)"
