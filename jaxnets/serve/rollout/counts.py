"""What is counted of two models that answer one name: sums, so that several processes can add theirs up."""

import dataclasses
import math
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

_EDGES = tuple(0.001 * 1.15**k for k in range(80))  # seconds, 1 ms to 62 s: p99 is right to 15 %


@dataclass
class Tally:
    """Requests of one model."""

    requests: int = 0  # that it was to answer
    failures: int = 0  # of them
    seconds: float = 0.0  # that it took for the others, in sum
    squares: float = 0.0  # likewise of their squares
    buckets: dict[int, int] = field(default_factory=dict)  # how many took so long, by the number of the edge above

    @property
    def answered(self) -> int:
        return self.requests - self.failures

    @property
    def failing(self) -> float:
        """The share that failed."""
        return self.failures / self.requests if self.requests else 0.0

    @property
    def mean(self) -> float | None:
        """Seconds of an answer; None without any."""
        return self.seconds / self.answered if self.answered else None

    @property
    def error(self) -> float:
        """The standard error of the mean, in seconds; 0 without any."""
        if self.mean is None:
            return 0.0
        return math.sqrt(max(self.squares / self.answered - self.mean**2, 0.0) / self.answered)

    @property
    def p99(self) -> float | None:
        """Seconds that 99 % of the answers took at most; None without any."""
        wanted, seen = 0.99 * self.answered, 0
        for number in sorted(self.buckets):
            seen += self.buckets[number]
            if seen >= wanted:
                return _EDGES[min(number, len(_EDGES) - 1)]
        return None

    def note(self, seconds: float | None) -> None:
        """Counts one request, which took so long, or failed (None)."""
        self.requests += 1
        if seconds is None:
            self.failures += 1
            return
        self.seconds += seconds
        self.squares += seconds**2
        number = bisect_left(_EDGES, seconds)
        self.buckets[number] = self.buckets.get(number, 0) + 1

    def add(self, other: "Tally") -> None:
        self.requests += other.requests
        self.failures += other.failures
        self.seconds += other.seconds
        self.squares += other.squares
        for number, count in other.buckets.items():
            self.buckets[number] = self.buckets.get(number, 0) + count

    def to_json(self) -> dict[str, Any]:
        """Returns what people are shown."""
        return {
            "requests": self.requests,
            "failures": self.failures,
            "mean_seconds": self.mean,
            "p99_seconds": self.p99,
        }


@dataclass
class Counts:
    """What was counted since a step began."""

    stable: Tally = field(default_factory=Tally)
    candidate: Tally = field(default_factory=Tally)
    copies: Tally = field(default_factory=Tally)  # images that the one was asked after the other had answered
    disagreed: int = 0  # of the copies that were answered: another class
    dropped: int = 0  # copies for which there was no time

    def __bool__(self) -> bool:
        return bool(self.stable.requests or self.candidate.requests or self.copies.requests or self.dropped)

    @property
    def disagreement(self) -> float | None:
        """The share of the copies that were answered otherwise; None without any."""
        return self.disagreed / self.copies.answered if self.copies.answered else None

    def add(self, other: "Counts") -> None:
        for name in ("stable", "candidate", "copies"):
            getattr(self, name).add(getattr(other, name))
        self.disagreed += other.disagreed
        self.dropped += other.dropped

    def saved(self) -> dict[str, Any]:
        """Returns what `read` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def read(cls, saved: dict[str, Any]) -> "Counts":
        tallies = {name: _tally(saved[name]) for name in ("stable", "candidate", "copies")}
        return cls(**tallies, disagreed=int(saved["disagreed"]), dropped=int(saved["dropped"]))


def _tally(saved: dict[str, Any]) -> Tally:
    return Tally(
        requests=int(saved["requests"]),
        failures=int(saved["failures"]),
        seconds=float(saved["seconds"]),
        squares=float(saved["squares"]),
        buckets={int(number): int(count) for number, count in saved["buckets"].items()},
    )
