"""What browsers and proxies need: whose pages may ask, and under which path a proxy shows the service."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from jaxnets.errors import UserError

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_DEFAULT_PORTS = {"http": 80, "https": 443}  # which browsers leave out
_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_OWN = ("v1", "docs", "openapi.json", "healthz", "readyz", "metrics")


@dataclass(frozen=True, kw_only=True)
class Web:
    """Where the service is shown, and to whose pages."""

    origins: tuple[str, ...] = ()  # whose pages may ask, as browsers write them; "*" for all
    root_path: str = ""  # that a proxy puts before the service's own paths, whether or not it takes it away again

    @classmethod
    def parse(cls, origins: Sequence[str] = (), root_path: str = "") -> "Web":
        """Reads what --cors-origin and --root-path say.

        Raises:
            UserError: for an origin that no browser would send, and a path that is none or one of the service's own.
        """
        return cls(origins=tuple(map(_parse_origin, origins)), root_path=_parse_root_path(root_path))

    def within(self, path: str) -> str:
        """Returns a request's path without the root path, which some proxies leave there and others take away."""
        return path[len(self.root_path) :] if path.startswith(f"{self.root_path}/") else path


def _parse_origin(text: str) -> str:
    if text == "*":
        return text
    origin = text.lower()
    if not _ORIGIN.fullmatch(origin):
        raise UserError(
            "--cors-origin must be SCHEME://HOST or SCHEME://HOST:PORT without a path, as browsers send it, or * for "
            f"all pages, found {text!r}: write https://www.example.org for instance"
        )
    scheme, _, _ = origin.partition("://")
    port = _DEFAULT_PORTS.get(scheme)
    return origin.removesuffix(f":{port}") if port else origin


def _parse_root_path(text: str) -> str:
    path = text.rstrip("/")
    segments = path.split("/")[1:]
    if not _ROOT_PATH.fullmatch(path) or {".", ".."} & set(segments):
        raise UserError(
            f"--root-path must be the path that the proxy adds, of letters, digits and . _ ~ -, found {text!r}: "
            "write /vision for instance"
        )
    if segments and segments[0] in _OWN:
        raise UserError(f"--root-path {text} begins like a path of the service's own (/{segments[0]}): take another")
    return path
