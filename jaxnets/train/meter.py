"""How much of a run's time its devices waited for data, and how near to their peak they came."""

from collections.abc import Mapping
from typing import Any

from jaxnets.config import DataConfig
from jaxnets.cores import cores
from jaxnets.data.examples import Examples
from jaxnets.train.feed import Feed

WAITING = 0.1  # share of the time above which a run says what to do
_SURE_SECONDS = 10.0  # of training before it does


class Meter:
    """Adds up what dispatches took, between two rows of metrics.jsonl.

    Args:
        feed: whose steps are compiled.
        peak: operations per second of such a device (`jaxnets.chips`); None: not known, as of a CPU.
        remedy: what to do where the devices wait.
        micro_batches: of a step. XLA counts what stands in their loop once.
        average: what a step does on average, as a share of what it can do at most, which is what XLA counts.
    """

    def __init__(
        self, feed: Feed, peak: float | None, remedy: str, micro_batches: int = 1, average: float = 1.0
    ) -> None:
        self._feed, self._peak, self._counted = feed, peak, micro_batches * average
        self._remedy: str | None = remedy
        self._waited_before = self._trained = 0.0
        self._begin()

    def _begin(self) -> None:
        self._done, self._seconds, self._waited = 0.0, 0.0, 0.0

    def add(self, steps: int, seconds: float | None) -> None:
        """Takes down a dispatch of so many steps that lasted so long, None where that is not known."""
        here, self._waited_before = self._feed.waited - self._waited_before, self._feed.waited
        if seconds is not None:
            # Now, as the operations of a step are others once more of the layers train.
            self._done += (self._feed.flops or 0) * self._counted * steps
            self._seconds += seconds
            self._waited += min(here, seconds)

    def figures(self) -> Mapping[str, Any]:
        """Returns what a row says of the time since the last, and begins anew.

        "data_wait" is the share of it that the devices waited, None where no dispatch was timed; "mfu", where it can be
        told, the operations done by what the devices could have done: the dense bfloat16 rate of the data sheet,
        whatever type the run computes in.
        """
        seconds = self._seconds
        figures: dict[str, Any] = {"data_wait": round(self._waited / seconds, 4) if seconds else None}
        if self._peak and self._feed.flops:
            figures["mfu"] = round(self._done / (self._peak * seconds), 4) if seconds else None
        self._trained += seconds
        self._begin()
        return figures

    def advice(self, data_wait: float | None) -> str | None:
        """Returns, once, what to do about devices that wait for this share of the time; None if it is small."""
        if data_wait is None or data_wait <= WAITING or self._trained < _SURE_SECONDS or self._remedy is None:
            return None
        text = f"the devices wait for data {data_wait:.0%} of the time: {self._remedy}"
        self._remedy = None
        return text


def remedy_of(spec: DataConfig, training: Examples, threads: int) -> str:
    """Returns which keys make the data of a run come quicker, the easiest first."""
    knobs = []
    if threads < cores():
        knobs.append(f"--config.data.threads={cores()} (now {threads}, and there are {cores()} cores)")
    if not training.cut:  # such a run keeps no images
        mebibytes = -(-training.nbytes // 2**20)
        knobs.append(f"--config.data.placement=device where {mebibytes:,} MiB fit on each device beside the training")
    if not spec.source.startswith("prepared:"):
        knobs.append(
            f"decode them once: python -m jaxnets.prepare --source {spec.source} --out DIR, then "
            f"--config.data.source=prepared:DIR"
        )
    if not training.cut:
        height, width, _ = training.shape
        knobs.append(f"a smaller --config.data.canvas_size (now {height}x{width})")
    return "; or ".join(knobs)
