"""Where a name stands between two models, and what follows from what was counted: on paper, without a clock."""

import copy
import dataclasses
import math
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, get_args

from jaxnets.errors import UserError
from jaxnets.serve.rollout.counts import Counts, Tally

Kind = Literal["split", "shadow", "canary"]
Phase = Literal["split", "shadow", "canary", "promoted", "rolled back"]
Bound = Literal["errors", "latency", "disagreement", "asked"]

_SURE = 3.29  # quantile of the normal distribution, 99.9 %: of what goes back before a step has its requests
_TWICE = 2.0  # standard errors of a latency
_FEW = 10  # requests, or copies, below which nothing goes back


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How a canary's share grows, and what sends it back."""

    steps: tuple[float, ...] = (0.01, 0.05, 0.25, 0.5, 1.0)  # shares of the requests
    window: float = 600.0  # seconds of a step, at least
    requests: int = 100  # that the candidate must have had in a step, and as many comparisons, at least
    errors: float = 0.01  # share of its requests that it may fail at, beyond the old model's
    latency: float = 1.5  # times the old model's mean that it may take
    disagreement: float = 0.1  # share of the comparisons in which it may say something else
    compare: float = 0.1  # share of the requests that both answer

    def __post_init__(self) -> None:
        steps = self.steps
        growing = all(low < high for low, high in pairwise(steps))
        if not steps or not growing or not all(0 < share <= 1 for share in steps):
            shown = ",".join(f"{100 * share:g}" for share in steps)
            raise UserError(f"--canary-steps must be percentages that grow, above 0 and up to 100, found {shown!r}")
        if not 0 <= self.window < math.inf:
            raise UserError(f"--canary-window must be at least 0 seconds and finite, found {self.window:g}")
        if self.requests < 1:
            raise UserError(f"--canary-requests must be at least 1, found {self.requests}")
        for name in ("errors", "disagreement", "compare"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise UserError(f"--canary-{name} must be a share from 0 to 1, found {value:g}")
        if not 0 < self.latency < math.inf:
            raise UserError(f"--canary-latency must be more than 0 and finite, found {self.latency:g}")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A model, and where it is opened from."""

    name: str
    path: str
    checkpoint: str | int


@dataclass(frozen=True, kw_only=True)
class State:
    """One name between its old model and a candidate."""

    kind: Kind  # how it began
    phase: Phase
    stable: Place
    candidate: Place
    given: str  # what the command line says of the name: where that has changed, this is past
    since: float  # seconds since 1970, when the step began
    step: int = 0  # of Bounds.steps
    epoch: int = 0  # grows with each change: what was counted before one does not count after it
    bound: Bound | None = None  # why it went back
    reason: str | None = None  # likewise, as a sentence
    counts: Counts = field(default_factory=Counts)
    usual: Tally = field(default_factory=Tally)  # of the old model, of the latest step in which it had requests

    def share(self, bounds: Bounds) -> float:
        """Returns the share of the requests that goes to the candidate; that of a split is the split's own."""
        if self.phase == "canary":
            return bounds.steps[min(self.step, len(bounds.steps) - 1)]
        return float(self.phase == "promoted")

    @property
    def answers(self) -> Place:
        """The model that has all requests, or the most."""
        return self.candidate if self.phase == "promoted" else self.stable

    def moved(self, phase: Phase, now: float, **changed: Any) -> "State":
        """Returns the state after a change of phase or step; counting begins anew."""
        fresh: dict[str, Any] = {"bound": None, "reason": None, "counts": Counts(), "usual": self.usual}
        return replace(self, phase=phase, since=now, epoch=self.epoch + 1, **{**fresh, **changed})

    def back(self, bound: Bound, reason: str, now: float) -> "State":
        """Returns the state after a way back: what was counted stays to be seen."""
        return self.moved("rolled back", now, bound=bound, reason=reason, counts=self.counts)

    def saved(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "counts": self.counts.saved()}

    @classmethod
    def read(cls, saved: dict[str, Any]) -> "State":
        """Returns what `saved` returned.

        Raises:
            ValueError, TypeError, KeyError: if it is none.
        """
        if saved["kind"] not in get_args(Kind) or saved["phase"] not in get_args(Phase):
            raise ValueError(f"no kind {saved['kind']!r} or phase {saved['phase']!r}")
        counts = Counts.read(saved["counts"])
        usual = Counts.read({**Counts().saved(), "stable": saved["usual"]}).stable
        places = {key: Place(**saved[key]) for key in ("stable", "candidate")}
        numbers = {"since": float(saved["since"]), "step": int(saved["step"]), "epoch": int(saved["epoch"])}
        return cls(**{**saved, **places, **numbers, "counts": counts, "usual": usual})


def counted(state: State, more: Counts, epoch: int) -> State:
    """Returns a state with what a process has counted since; what it counted before the latest change is left out."""
    if epoch != state.epoch or not more:
        return state
    counts = copy.deepcopy(state.counts)
    counts.add(more)
    return replace(state, counts=counts)


def judged(state: State, bounds: Bounds, now: float) -> State:
    """Returns a canary's state after what was counted: back, one step further, promoted, or as it was."""
    if state.phase != "canary":
        return state
    if found := crossed(state, bounds):
        return state.back(*found, now)
    if missing(state, bounds, now):
        return state
    usual = state.counts.stable if state.counts.stable.answered >= _FEW else state.usual
    if state.step + 1 < len(bounds.steps):
        return state.moved("canary", now, step=state.step + 1, usual=usual)
    if bounds.steps[-1] < 1:
        return state  # the last step is the operator's
    return state.moved("promoted", now, usual=usual)


def missing(state: State, bounds: Bounds, now: float) -> str | None:
    """Returns what a canary's step waits for; None where it has all."""
    counts, waits = state.counts, []
    if (left := bounds.window - (now - state.since)) > 0:
        waits.append(f"{left:.0f} s")
    if (left := bounds.requests - counts.candidate.requests) > 0:
        waits.append(f"{left} requests")
    if bounds.compare and (left := bounds.requests - counts.copies.answered) > 0:
        waits.append(f"{left} comparisons")
    return ", ".join(waits) or None


def crossed(state: State, bounds: Bounds) -> tuple[Bound, str] | None:
    """Returns which bound a canary has crossed, and how; None where it is within all.

    With the requests of a step the shares themselves must be within. With fewer, from 10 on, it is enough that the
    lower end of their 99.9 % score interval (Wilson 1927) is not beyond. A mean latency is beyond where it is so by two
    standard errors: one request that met a pause of the machine sends nobody back.
    """
    counts, usual = state.counts, _usual(state)
    allowed = bounds.errors + usual.failing
    failing = _beyond(counts.candidate.failures, counts.candidate.requests, bounds.requests)
    if failing > allowed:
        return "errors", (
            f"{counts.candidate.failures} of {counts.candidate.requests} requests failed, and {allowed:.2%} may"
        )
    disagreeing = _beyond(counts.disagreed, counts.copies.answered, bounds.requests)
    if disagreeing > bounds.disagreement:
        return "disagreement", (
            f"{counts.disagreed} of {counts.copies.answered} answers were others than {state.stable.name}'s, and "
            f"{bounds.disagreement:.2%} may be"
        )
    mine, theirs = counts.candidate.mean, usual.mean
    if counts.candidate.answered < bounds.requests or usual.answered < _FEW or mine is None or theirs is None:
        return None
    unsure = _TWICE * math.hypot(counts.candidate.error, bounds.latency * usual.error)
    if mine - bounds.latency * theirs > unsure:
        return "latency", (
            f"an answer took {1e3 * mine:.1f} ms, {mine / theirs:.2f} times {state.stable.name}'s {1e3 * theirs:.1f} "
            f"ms, and {bounds.latency:g} times may be"
        )
    return None


def _usual(state: State) -> Tally:
    return state.counts.stable if state.counts.stable.answered >= _FEW else state.usual


def _beyond(found: int, count: int, wanted: int) -> float:
    """Returns what a share surely is at least, or, once there are as many as are wanted, the share."""
    if count >= wanted:
        return found / count
    if count < _FEW:
        return 0.0
    share, z2 = found / count, _SURE**2
    half = _SURE * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max((share + z2 / (2 * count) - half) / (1 + z2 / count), 0.0)
