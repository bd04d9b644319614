"""Asks a model what another one has answered already, in what time is left over: nobody waits for it."""

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
from jaxtyping import Float32

from jaxnets.cores import cores
from jaxnets.monitor.recorder import Answered, Recorder
from jaxnets.serve.limits import Limits
from jaxnets.serve.loaded import Loaded
from jaxnets.serve.rollout.reply import Copy, names_of

_log = logging.getLogger(__name__)

_WAITING, _BYTES = 64, 32 << 20  # requests that wait, and bytes of their images, at most
_NICER = 5  # than the other threads. No more: beside other programs it would wait for its turn with Python's lock held

Row = Float32[np.ndarray, "1 columns"]
Heard = Callable[[Copy, float | None, bool], None]  # (the copy, an image's seconds or None: failed, whether it agrees)


class Copier:
    """One thread of lower priority, which takes an image whenever no model has anything to do, and then rests.

    Args:
        limits: of images.
        idle: waits until no model has anything to do.
        spare: share of the cores' time that it may take; with many cores it need not rest.
        heard: is called on the event loop with what has come of each image.
        dropped: likewise, of each request for which there was no time.
        recorder: gets a record of each answer, with the number of the first one's.
    """

    def __init__(
        self,
        limits: Limits,
        idle: Callable[[], Awaitable[None]],
        spare: float,
        heard: Heard,
        dropped: Callable[[Copy], None],
        recorder: Recorder | None = None,
    ) -> None:
        self._limits = limits
        self._idle = idle
        self._rest = max(1 / (spare * cores()) - 1, 0.0)  # seconds for each that it has computed
        self._heard = heard
        self._dropped = dropped
        self._recorder = recorder
        self._waiting: deque[Copy] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "copies", initializer=_give_way)
        self._pump: asyncio.Task[None] | None = None
        self._failing: set[str] = set()  # models whose latest copy failed

    def offer(self, copy: Copy) -> None:
        """Takes a request, or drops it where it is behind."""
        if len(self._waiting) >= _WAITING or self._bytes + copy.nbytes > _BYTES or self._pump is None:
            self._dropped(copy)
            return
        self._bytes += copy.nbytes
        self._waiting.append(copy)
        self._arrived.set()

    def start(self) -> None:
        self._pump = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Ends after the image at hand; what waits is left."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
            self._pump = None
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    async def _run(self) -> None:
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            copy = self._waiting.popleft()
            self._bytes -= copy.nbytes
            for number in range(len(copy.uploads)):
                await self._idle()
                start = time.perf_counter()
                await self._one(copy, number)
                await asyncio.sleep(self._rest * (time.perf_counter() - start))

    async def _one(self, copy: Copy, number: int) -> None:
        name = copy.other.name
        with copy.other.lease() as loaded:
            try:
                row, seconds = await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._compute, loaded, copy, number
                )
            except Exception as error:  # whatever a new model leads to
                if name not in self._failing:
                    _log.warning("%s: a copy for %s failed: %r", copy.name, name, error)
                self._failing.add(name)
                self._heard(copy, None, False)
                return
            self._failing.discard(name)
            self._heard(copy, seconds, names_of(loaded, row[0]) == copy.reply.names(number))
            self._record(loaded, copy, number, row, seconds)

    def _compute(self, loaded: Loaded, copy: Copy, number: int) -> tuple[Row, float]:
        # What waits for other threads at a lower priority says nothing of the model.
        clock = time.thread_time if loaded.predictor.engine.threads == 1 else time.perf_counter
        start = clock()
        image = loaded.prepare(copy.uploads[number], self._limits)[None]
        row = loaded.predictor.rows_of_fitted(image) if loaded.observer is None else loaded.observer.rows(image)
        return row, clock() - start

    def _record(self, loaded: Loaded, copy: Copy, number: int, row: Row, seconds: float) -> None:
        kept = copy.reply.ids[number]
        if self._recorder is None or loaded.observer is None or kept is None:
            return
        ids = np.array([kept], np.uint64)
        self._recorder.add(
            Answered(loaded.observer, row, [copy.reply.sizes[number]], ids, copy.reply.time, seconds, [])
        )


def _give_way() -> None:
    """Has this thread alone give way to the others, where the system knows priorities of threads."""
    with suppress(OSError, AttributeError):
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICER)
