"""What /metrics gives to Prometheus: of one process, or the sums of several that answer at one port."""

from collections.abc import Callable

import prometheus_client.values
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Meters:
    """Counters of one application, in a registry of their own.

    Args:
        worker: number of this process where it is one of several. They keep their figures in files that each of them
            reads (PROMETHEUS_MULTIPROC_DIR), and whoever replaces one counts on in its files.
    """

    def __init__(self, worker: int | None = None) -> None:
        self._shared = worker is not None
        if worker is not None:
            # Not by the process's id, as it is by default: files of those that ended would pile up.
            prometheus_client.values.ValueClass = prometheus_client.values.MultiProcessValue(lambda: worker)
        self.registry = CollectorRegistry()
        self._requests = Counter("jaxnets_requests", "Requests answered", ["route", "status"], registry=self.registry)
        self._seconds = Histogram(
            "jaxnets_request_seconds", "From a request's headers to its answer", ["route"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._batch = Histogram(
            "jaxnets_batch_images", "Images computed together", ["model"], buckets=_SIZES, registry=self.registry
        )
        self._queue = Gauge(
            "jaxnets_queue_images", "Images without an answer", ["model"],
            registry=self.registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self._step = Gauge(
            "jaxnets_model_step", "Step of the checkpoint that answers, in all workers; -1: the weights are no run's",
            ["model"], registry=self.registry, multiprocess_mode="livemin",
        )  # fmt: skip
        self._workers = Gauge(
            "jaxnets_workers", "Processes that answer", registry=self.registry, multiprocess_mode="livesum"
        )
        self._cache = Counter(
            "jaxnets_cache_images", "Images that were looked up in the cache: hit, miss, or error", ["model", "result"],
            registry=self.registry,
        )  # fmt: skip
        self._records = Counter(
            "jaxnets_records", "Records of answers that were written", ["model"], registry=self.registry
        )
        self._dropped = Counter(
            "jaxnets_records_dropped", "Records that were lost: the disk is full, or too slow", ["model"],
            registry=self.registry,
        )  # fmt: skip

    def answered(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch_of(self, model: str) -> Callable[[int], None]:
        return self._batch.labels(model).observe

    def queue_of(self, model: str) -> Callable[[int], None]:
        """Returns what adds to the images without an answer, or takes away from them."""
        # No function that is asked at a scrape: another process may be asked.
        return self._queue.labels(model).inc

    def looked_up(self, model: str, result: str, count: int) -> None:
        self._cache.labels(model, result).inc(count)

    def loaded(self, model: str, step: int | None) -> None:
        self._step.labels(model).set(-1 if step is None else step)

    def forget(self, model: str) -> None:
        """Shows nothing more of a model that is served no longer."""
        if not self._shared:  # what processes share has no end
            for gauge in (self._queue, self._step):
                gauge.remove(model)

    def recorded(self, model: str, count: int) -> None:
        self._records.labels(model).inc(count)

    def dropped(self, model: str, count: int) -> None:
        self._dropped.labels(model).inc(count)

    def answering(self) -> None:
        self._workers.set(1)

    def text(self) -> bytes:
        if not self._shared:
            return generate_latest(self.registry)
        sums = CollectorRegistry()
        MultiProcessCollector(sums)
        return generate_latest(sums)
