"""What /metrics says of models that take over."""

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from jaxnets.serve.rollout.state import Bounds, State

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)
_PHASES = ("split", "shadow", "canary", "promoted", "rolled back")
_AGREED: Literal["livemostrecent"] = "livemostrecent"  # of several processes, which agree within a second
_BOUNDS = ("errors", "latency", "disagreement", "asked")


class RolloutMeters:
    """Counters of what this process has answered, and gauges of what all processes agree on."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._share = Gauge(
            "jaxnets_rollout_share", "Share of a name's requests that its candidate answers", ["name", "candidate"],
            registry=registry, multiprocess_mode=_AGREED,
        )  # fmt: skip
        self._phase = Gauge(
            "jaxnets_rollout_phase", "1 for the phase at hand", ["name", "phase"],
            registry=registry, multiprocess_mode=_AGREED,
        )  # fmt: skip
        self._back = Gauge(
            "jaxnets_rollout_rolled_back", "1 for the bound that sent a name's candidate back", ["name", "bound"],
            registry=registry, multiprocess_mode=_AGREED,
        )  # fmt: skip
        self._answers = Counter(
            "jaxnets_rollout_answers", "Requests by the model that was to answer", ["name", "model", "outcome"],
            registry=registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "jaxnets_rollout_seconds", "From a request's acceptance to its model's answer", ["name", "model"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._copies = Counter(
            "jaxnets_copies", "Images that a model was asked after another one had answered",
            ["name", "model", "outcome"], registry=registry,
        )  # fmt: skip
        self._copy_seconds = Histogram(
            "jaxnets_copy_seconds", "That a model took for a copy", ["name", "model"], buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._shown: dict[str, str] = {}  # candidate whose share is shown, by name

    def show(self, name: str, state: State, bounds: Bounds) -> None:
        if (before := self._shown.get(name)) not in (None, state.candidate.name):
            self._share.remove(name, before)
        self._shown[name] = state.candidate.name
        self._share.labels(name, state.candidate.name).set(state.share(bounds))
        for phase in _PHASES:
            self._phase.labels(name, phase).set(phase == state.phase)
        for bound in _BOUNDS:
            self._back.labels(name, bound).set(bound == state.bound)

    def answered(self, name: str, model: str, seconds: float | None) -> None:
        self._answers.labels(name, model, "failed" if seconds is None else "answered").inc()
        if seconds is not None:
            self._seconds.labels(name, model).observe(seconds)

    def copied(self, name: str, model: str, seconds: float | None, *, agrees: bool) -> None:
        outcome = "failed" if seconds is None else "agreed" if agrees else "disagreed"
        self._copies.labels(name, model, outcome).inc()
        if seconds is not None:
            self._copy_seconds.labels(name, model).observe(seconds)

    def dropped(self, name: str, model: str) -> None:
        self._copies.labels(name, model, "dropped").inc()
