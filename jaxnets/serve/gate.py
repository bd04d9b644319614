"""What every request passes before it reaches a route: stop, keys, overload; and after it: failures, figures."""

import asyncio
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from jaxnets.serve.limits import Keys, Limits, Refused, overloaded
from jaxnets.serve.models import Models
from jaxnets.serve.rollout.routes import ROUTE as ADMIN_ROUTE
from jaxnets.serve.rollout.routes import check_admin
from jaxnets.serve.web import Web

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_log = logging.getLogger(__name__)

_LINGER = 2.0  # seconds that an upload is read and thrown away, so that its sender reads why it was refused
_SMALL = 1 << 20  # bytes of a body that is rather read than its connection closed
_PREDICT = re.compile(r"/v1/models/([^/]+)/predict")
_MODEL_ROUTE = re.compile(r"/v1/models/[^/]+/(predict|explain|embed|search|promote|rollback|canary)")
_ROUTES = ("/v1/models", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")


class Gate:
    """ASGI middleware. A refusal here costs little, so that many of them leave the cores to those accepted."""

    def __init__(
        self, app: App, *, models: Models, limits: Limits, keys: Keys, web: Web, admin: Keys | None = None
    ) -> None:
        self._app = app
        self._models = models
        self._limits = limits
        self._keys = keys
        self._admin = admin or Keys()
        self._web = web

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        # Decided once, here: a path that the gate reads otherwise than the routes do would pass without a key.
        path = self._web.within(scope["path"])
        scope = {**scope, "path": self._web.root_path + path, "root_path": self._web.root_path}
        state = scope["app"].state
        exchange = _Exchange(scope, receive, send, closing=lambda: state.stopping)
        state.running += 1
        try:
            refused = self._refuse(path, scope["method"], exchange.header, stopping=state.stopping)
            if refused is None:
                await self._app(scope, exchange.receive, exchange.send)
            else:
                await exchange.answer(refused)
        except Exception as error:
            # Here, and not in a handler of the application: Starlette's would answer past this gate.
            _log.error("%s %s failed", scope["method"], ascii(scope["path"]), exc_info=error)
            if exchange.begun:
                raise
            await exchange.answer(Refused(500, "internal", "the service failed at this; its log says why"))
        finally:
            state.running -= 1
            self._models.meters.answered(_route(path), exchange.status, time.perf_counter() - start)

    def _refuse(self, path: str, method: str, header: Callable[[bytes], bytes], *, stopping: bool) -> Refused | None:
        if not path.startswith("/v1/") and path != "/metrics":
            return None
        try:
            if ADMIN_ROUTE.fullmatch(path):
                check_admin(self._admin, header(b"authorization"), header(b"x-api-key"))
            else:
                self._keys.check(header(b"authorization"), header(b"x-api-key"))
        except Refused as refused:
            return refused
        if stopping and path != "/metrics":
            return Refused(503, "stopping", "the service is about to end: try again", {"Retry-After": "1"})
        length = header(b"content-length")
        if length.isdigit() and int(length) > self._limits.max_bytes:
            return too_large(self._limits, f"{int(length):,}")
        predict = _PREDICT.fullmatch(path)
        if predict and method == "POST" and (error := self._models.refuse(predict[1])):
            return overloaded(error)
        return None


def too_large(limits: Limits, found: str) -> Refused:
    return Refused(
        413,
        "body_too_large",
        f"the body has {found} bytes, more than the {limits.max_bytes:,} allowed: shrink the images, or send fewer",
    )


class _Exchange:
    """One request and its answer: notes what went through, and ends a connection whose upload goes on."""

    def __init__(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send, *, closing: Callable[[], bool]
    ) -> None:
        self.status = 499  # of a client that left; others get theirs from the answer
        self.begun = False  # to answer
        self._headers = scope["headers"]
        self._receive = receive
        self._send = send
        self._closing = closing
        self._ends = False
        length = self.header(b"content-length")
        chunked = bool(self.header(b"transfer-encoding"))
        self._unread = chunked or (length.isdigit() and int(length) > 0)
        self._short = not chunked and length.isdigit() and int(length) <= _SMALL

    def header(self, name: bytes) -> bytes:
        return next((value for key, value in self._headers if key == name), b"")

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._unread = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            self.status = message["status"]
            self._ends = self._unread and not self._short
            if self._ends or self._closing():
                message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
        elif self._ends and not message.get("more_body", False):
            # Closed with bytes unread, the connection would be reset, and the answer lost on its way.
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def answer(self, refused: Refused) -> None:
        body = json.dumps(refused.content).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **refused.headers}
        encoded = [(key.lower().encode(), value.encode()) for key, value in headers.items()]
        await self.send({"type": "http.response.start", "status": refused.status, "headers": encoded})
        await self.send({"type": "http.response.body", "body": body})

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(_LINGER):
                while self._unread:
                    await self.receive()
        except TimeoutError:
            pass


def _route(path: str) -> str:
    """Returns the route as the figures name it: there are few, whatever paths are tried."""
    if path in _ROUTES:
        return path
    found = _MODEL_ROUTE.fullmatch(path)
    return f"/v1/models/{{name}}/{found[1]}" if found else "other"
