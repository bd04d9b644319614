"""Answers that are kept in Redis, where several services and processes find them, and that nobody depends on."""

import asyncio
import logging
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from jaxnets.errors import UserError

_log = logging.getLogger(__name__)

_DATABASE = re.compile(r"(/[0-9]*)?")
_PREFIX = "jaxnets:answer:"
_SECONDS = 0.1  # that a request waits for Redis, at most
_LASTING = 24 * 3600  # seconds that an entry is kept, so that those of old weights go
_PAUSES = (1.0, 30.0)  # seconds until Redis is tried again: the first time, and at most
_WRITES = 64  # that are under way, at most; what comes then is not kept
_CONNECTIONS = 64


class RedisStore:
    """Redis, as long as it answers; while it does not, everything is computed and it is tried ever more rarely.

    Raises:
        UserError: if the address is none, or the client is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            from redis.asyncio import BlockingConnectionPool, Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
            from redis.exceptions import RedisError
        except ImportError as error:
            raise UserError(
                f"{error.name} is not installed, and --cache {_shown(url)} needs it: pip install 'jaxnets[redis]'"
            ) from error
        try:
            parts = urlsplit(url)
            if parts.scheme != "unix" and not _DATABASE.fullmatch(parts.path):
                raise ValueError(f"{parts.path} is no number of a database")
            pool = BlockingConnectionPool.from_url(
                url, max_connections=_CONNECTIONS, timeout=_SECONDS, socket_timeout=_SECONDS,
                socket_connect_timeout=_SECONDS, retry=Retry(NoBackoff(), 0),
            )  # fmt: skip
        except (ValueError, TypeError) as error:
            raise UserError(
                f"--cache {_shown(url)} is no address of Redis ({error}): expected redis://HOST:PORT/DB, rediss:// or "
                "unix://"
            ) from error
        self._client: Any = Redis(connection_pool=pool)
        self._errors = (RedisError, OSError, TimeoutError)
        # A full Redis may answer and take nothing.
        name = _shown(url)
        self._reading = _Patience(f"{name} does not answer", f"{name} answers again")
        self._writing = _Patience(f"{name} keeps nothing", f"{name} keeps answers again")
        self._writes: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Asks it something, so that its absence is in the log from the beginning."""
        await self.get([b"start"])

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        if not self._reading.tries():
            return None
        try:
            async with asyncio.timeout(_SECONDS):
                found = await self._client.mget([_PREFIX + key.hex() for key in keys])
        except self._errors as error:
            self._reading.failed(error)
            return None
        self._reading.worked()
        return found

    def put(self, items: Mapping[bytes, bytes]) -> None:
        if self._reading.failing or len(self._writes) >= _WRITES or not items or not self._writing.tries():
            return
        task = asyncio.ensure_future(self._write(dict(items)))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _write(self, items: Mapping[bytes, bytes]) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                pipeline = self._client.pipeline(transaction=False)
                for key, value in items.items():
                    pipeline.set(_PREFIX + key.hex(), value, ex=_LASTING)
                # What it raises by itself holds the answer, which is nothing for a log.
                for done in await pipeline.execute(raise_on_error=False):
                    if isinstance(done, Exception):
                        raise done
        except self._errors as error:
            self._writing.failed(error)
        else:
            self._writing.worked()

    async def close(self) -> None:
        await asyncio.gather(*self._writes, return_exceptions=True)
        await self._client.aclose()


class _Patience:
    """Says when something that failed is tried again, and logs that it failed and that it works again, once each."""

    def __init__(self, fails: str, works: str) -> None:
        self.failing = False
        self._fails, self._works = fails, works  # what the log says
        self._since = self._next = 0.0
        self._pause = 0.0

    def tries(self) -> bool:
        if not self.failing:
            return True
        now = time.monotonic()
        if now < self._next:
            return False
        # The others do not wait with the one that tries.
        self._pause = min(2 * self._pause, _PAUSES[1])
        self._next = now + self._pause
        return True

    def failed(self, error: BaseException) -> None:
        if self.failing:
            return
        now = time.monotonic()
        self.failing, self._since, self._pause, self._next = True, now, _PAUSES[0], now + _PAUSES[0]
        _log.warning(
            "%s (%s): answers are computed without it; it is tried again in %g s, and then ever more rarely, at least "
            "every %g s", self._fails, str(error) or f"no answer in {_SECONDS:g} s", *_PAUSES,
        )  # fmt: skip

    def worked(self) -> None:
        if self.failing:
            self.failing = False
            _log.info("%s, after %.0f s", self._works, time.monotonic() - self._since)


def _shown(url: str) -> str:
    """Returns an address without its password."""
    try:
        parts = urlsplit(url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    except ValueError:
        return url.partition("://")[0] + "://…"
