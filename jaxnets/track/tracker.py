"""What a tracker is: a place where a run is seen beside its directory."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Row = Mapping[str, Any]  # of metrics.jsonl
Ended = Literal["finished", "stopped", "failed"]  # how a session of a run did


class Tracker(Protocol):
    """What takes rows, images and files; it may raise anything."""

    def rows(self, rows: Sequence[Row]) -> None:
        """Takes rows of metrics.jsonl, in their order."""

    def image(self, name: str, png: bytes, step: int) -> None: ...

    def files(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Takes files by their names in a folder of the run's; those of the same names are replaced."""

    def close(self, ended: Ended | None, why: str = "") -> None:
        """Sends what is left. `ended` says how the run did, None where that is as it was, and `why` it failed."""


class Remote(Tracker, Protocol):
    """A run of a service's; `id` is what the service calls it, and `address` where people find it."""

    id: str
    address: str


@dataclass(frozen=True, kw_only=True)
class About:
    """What a run is, as trackers show it."""

    name: str
    key: str  # by which a run is known that was begun there, whatever became of the answer
    folder: str | None  # the run directory; None where it lies in a bucket
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is known of a remote run, and of what it has got; kept in the run directory."""

    key: str
    id: str | None = None  # None: it was never reached
    address: str = ""
    sent: int = 0  # rows and images
    steps: Mapping[str, int] = field(default_factory=dict)  # newest that it has, by kind of row
    files: Mapping[str, int] = field(default_factory=dict)  # checksums by name

    def lacks(self, row: Row) -> bool:
        """Whether a row was not sent: each kind of them comes in the order of its steps."""
        return row["step"] > self.steps.get(kind_of(row), -1)


def kind_of(row: Row) -> str:
    """Returns what a row is of: train, eval, test."""
    return next((key.partition("/")[0] for key in row if "/" in key), "")


def numbers_in(row: Row) -> dict[str, float]:
    """Returns the finite numbers of a row, without its step and its time."""
    return {
        key: value
        for key, value in row.items()
        if key not in ("step", "time")
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    }
