"""What a request for predictions leaves in the records."""

import time
from collections.abc import Sequence

from jaxtyping import Float32
from numpy import ndarray

from jaxnets.monitor.observe import Observer
from jaxnets.monitor.recorder import Answered, Recorder, as_text
from jaxnets.serve.images import Upload


class Arrival:
    """When a request has come, by both clocks: of the day, and one that nobody sets."""

    def __init__(self) -> None:
        self.time, self._start = time.time(), time.perf_counter()

    def record(
        self,
        recorder: Recorder,
        observer: Observer,
        rows: Float32[ndarray, "n columns_and_more"],
        sizes: Sequence[tuple[int, int]],
        uploads: Sequence[Upload],
    ) -> list[str]:
        """Hands the request, now that it is answered, to the recorder; returns the number of each answer as text."""
        ids = recorder.ids(len(rows))
        kept = [upload.content for upload in uploads] if recorder.bounds.images else []
        recorder.add(Answered(observer, rows, sizes, ids, self.time, time.perf_counter() - self._start, kept))
        return [as_text(number) for number in ids.tolist()]
