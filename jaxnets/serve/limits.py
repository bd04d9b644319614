"""What the service takes from a stranger, and how it says no."""

import hashlib
import hmac
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxnets.errors import UserError
from jaxnets.serve.admission import Overloaded

MEBIBYTE = 1 << 20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a model, in addresses
_WAIT = 1.6  # latency targets that an image may wait in an overload
_BURST = 0.25  # of the timeout that a burst may take


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of a request, with defaults that are safe on a machine of 2 cores and 2 GiB."""

    max_bytes: int = 10 * MEBIBYTE  # of a request's body
    max_pixels: int = 25_000_000  # of an image
    max_images: int = 16  # of a request
    timeout: float = 10.0  # seconds: for a request's headers, for its body, and for its answer from then on
    queue: int = 256  # images that were accepted and have no answer yet
    latency: float = (
        0.05  # seconds: what an image's answer should take; bounds the batch, and the waiting in an overload
    )
    burst: int = 64  # images that may wait while there is no overload, as far as they take no more than burst_seconds
    max_connections: int = 4096

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                raise UserError(f"--{name.replace('_', '-')} must be more than 0 and finite, found {value}")

    @property
    def wait(self) -> float:
        """Seconds that an image may wait in an overload."""
        return _WAIT * self.latency

    @property
    def burst_seconds(self) -> float:
        """Seconds that a burst may take."""
        return _BURST * self.timeout


class Refused(Exception):
    """An answer that is no success: its status, a word for programs and a message for people."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})

    @property
    def content(self) -> dict[str, dict[str, str]]:
        return {"error": {"code": self.code, "message": self.message}}


def overloaded(error: Overloaded) -> Refused:
    return Refused(503, "overloaded", str(error), {"Retry-After": str(max(1, round(error.seconds)))})


class Keys:
    """The API keys that open the service; none of them means that it is open to everyone."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def shares_one(self, others: "Keys") -> bool:
        """Tells whether a key is among others too."""
        return not set(self._digests).isdisjoint(others._digests)

    def check(self, authorization: bytes, api_key: bytes) -> None:
        """Refuses a request whose headers `Authorization: Bearer KEY` and `X-API-Key: KEY` hold no known key.

        The comparison takes the same time whatever is given.
        """
        if not self._digests:
            return
        scheme, _, token = authorization.partition(b" ")
        given = token.strip() if scheme.lower() == b"bearer" else api_key
        found = [hmac.compare_digest(_digest(given), known) for known in self._digests]
        if not any(found):
            raise Refused(
                401,
                "unauthorized",
                "this service needs an API key: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'",
                {"WWW-Authenticate": "Bearer"},
            )


def read_keys(path: Path, option: str = "--api-key-file") -> Keys:
    """Reads a file of API keys, one a line; empty lines and those that begin with # do not count.

    Raises:
        UserError: if it cannot be read or holds none.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"the API keys in {path} cannot be read ({error}): give a text file, one key a line") from error
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise UserError(f"there is no API key in {path}: write one a line, or leave {option} out")
    return Keys(keys)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
