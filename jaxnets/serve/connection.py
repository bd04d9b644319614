"""One connection: what uvicorn does, and that no client may keep it for nothing."""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from jaxnets.serve.limits import Refused


def make_protocol(*, seconds: float, most: int) -> type[HttpToolsProtocol]:
    """Returns the protocol of connections of which at most so many are open.

    A connection is dropped when a request's headers, or the reader of its answer, take longer than `seconds`; the time
    of the body is the application's to watch.
    """

    class Connection(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > most:
                transport.abort()
                return
            self._expect()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._expect()

        def on_headers_complete(self) -> None:
            self._stop()
            super().on_headers_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._expect()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop()

        def timeout_keep_alive_handler(self) -> None:
            self._drop()  # close would wait for a reader that may never come

        def send_400_response(self, msg: str) -> None:
            refused = Refused(400, "bad_request", "this is no HTTP/1.1 request: let a library write it")
            body = json.dumps(refused.content).encode()
            head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + head.encode() + body)
            self.transport.close()

        def _expect(self) -> None:
            self._stop()
            self._timer = self.loop.call_later(seconds, self._drop)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _drop(self) -> None:
            if self.transport is not None and not self.transport.is_closing():
                self.transport.abort()

    return Connection
