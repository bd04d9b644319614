"""Dynamic batching: images of many requests go through a model together."""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from jaxnets.serve.admission import Admission, Overloaded

_log = logging.getLogger(__name__)

Image = UInt8[np.ndarray, "h w c"]
Compute = Callable[[UInt8[np.ndarray, "b h w c"]], Float32[np.ndarray, "b columns"]]

_LARGEST = 64  # images: a larger batch is hardly quicker an image anywhere
_HARDLY = 1.1  # times the best time of an image that a smaller batch may take
_MEMORY = 0.1  # weight of the newest batch in the running means of the times that an image takes
_HICCUP = 4.0  # times the mean: more than that counts as so much, since the machine may have paused


class Job:
    """The images of one request, from their acceptance to the future that holds their rows (`jaxnets.answer`)."""

    def __init__(self, count: int, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[Float32[np.ndarray, "n columns"]] = loop.create_future()
        self.rows: list[Float32[np.ndarray, " columns"] | None] = [None] * count
        self.missing = count
        self.accepted = time.perf_counter()


class _Item(NamedTuple):
    job: Job
    position: int  # among the job's images
    image: Image


class Batcher:
    """Feeds a model with the images that wait, as many at once as there are and fit in `batch_seconds`.

    An idle model starts at once on what comes: nothing waits for company. Images are made ready in `pool`, computed
    in threads of the batcher's own, and answered on the event loop, where all methods belong.

    Args:
        compute: takes fitted images to rows, in several threads at once if there are several workers.
        workers: threads that compute.
        most: images that go through the model at once, at most.
        batch_seconds: that a batch should take, at most: with the time that the latest ones took for each image, it
            bounds the next.
        admission: says what has no room any more.
        pool: where images are decoded and fitted.
        on_batch: is called with the size of each batch, in the batcher's thread.
        on_pending: is called with how many more images, or fewer, have no answer.
        seconds_per_image: what to reckon with at first.
    """

    def __init__(
        self,
        compute: Compute,
        *,
        workers: int = 1,
        most: int,
        batch_seconds: float = math.inf,
        admission: Admission,
        pool: Executor,
        on_batch: Callable[[int], None] = lambda size: None,
        on_pending: Callable[[int], None] = lambda more: None,
        seconds_per_image: float = 0.0,
    ) -> None:
        self.workers = workers
        self.pending = 0  # images that were accepted and have no answer
        self._compute = compute
        self._most = most
        self._batch_seconds = batch_seconds
        self._admission = admission
        self._pool = pool
        self._on_batch = on_batch
        self._on_pending = on_pending
        self._computing = seconds_per_image  # in the model
        self._seconds = seconds_per_image / workers  # of the whole machine, where images wait for one another
        self._ready: deque[_Item] = deque()
        self._arrived = threading.Condition()
        self._ending = False  # nothing new is accepted
        self._closing = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._idle = 0  # workers that wait
        self._threads = [threading.Thread(target=self._work, name="batcher", daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    @property
    def largest(self) -> int:
        """How many images go through the model at once now, at most: a power of two, for what is compiled."""
        fitting = self._batch_seconds / max(self._computing, 1e-9)
        return self._most if fitting >= self._most else 1 << int(math.log2(max(fitting, 1)))

    def refuse(self, count: int = 1) -> Overloaded | None:
        """Returns why there is no room for so many images now, or None where there is."""
        return self._admission.refuse(self.pending, count, self._seconds)

    def submit(self, images: Sequence[Callable[[], Image]]) -> "asyncio.Future[Float32[np.ndarray, 'n columns']]":
        """Accepts images, given as functions that return them fitted, and returns the future of their rows.

        What such a function raises is raised by the future. Whoever cancels the future spares its computation.

        Raises:
            Overloaded: if they would wait for too long.
        """
        if self._ending:
            raise Overloaded("this model is about to end: try again", 1.0)
        if overloaded := self.refuse(len(images)):
            raise overloaded
        job = Job(len(images), asyncio.get_running_loop())
        count = len(images)
        self.pending += count
        self._on_pending(count)
        self._empty.clear()

        def answered(future: asyncio.Future) -> None:
            self.pending -= count
            self._on_pending(-count)
            if not self.pending:
                self._empty.set()

        job.future.add_done_callback(answered)
        for index, image in enumerate(images):
            self._pool.submit(self._prepare, job, index, image)
        return job.future

    async def close(self) -> None:
        """Answers what was accepted, and nothing new, then ends the threads."""
        self._ending = True
        await self._empty.wait()
        self.stop()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    async def idle(self) -> None:
        """Waits until nothing is without an answer."""
        await self._empty.wait()

    def stop(self) -> None:
        """Ends the threads, where nothing waits for them."""
        self._ending = True
        with self._arrived:
            self._closing = True
            self._arrived.notify_all()

    def _prepare(self, job: Job, index: int, image: Callable[[], Image]) -> None:
        if job.future.done():
            return
        try:
            item = _Item(job, index, image())
        except Exception as error:
            _call(job, _fail, [job], error)
            return
        with self._arrived:
            self._ready.append(item)
            self._arrived.notify()

    def _work(self) -> None:
        finished = 0.0  # when this worker's latest batch was
        while True:
            with self._arrived:
                self._idle += 1
                while not self._ready and not self._closing:
                    self._arrived.wait()
                if not self._ready:
                    return
                # What is ready is shared with the workers that wait for something.
                share = min(self.largest, -(-len(self._ready) // self._idle))
                self._idle -= 1
                items: list[_Item] = []
                while self._ready and len(items) < share:
                    item = self._ready.popleft()
                    if not item.job.future.done():  # its client gave up, or its time is over
                        items.append(item)
            if items:
                finished = self._run(items, finished)

    def _run(self, items: list[_Item], finished: float) -> float:
        start = time.perf_counter()
        try:
            self._on_batch(len(items))
            rows = self._compute(np.stack([item.image for item in items]))
        except Exception as error:
            _log.exception("a batch of %d images failed", len(items))
            _call(items[0].job, _fail, [item.job for item in items], error)
        else:
            self._note(items, start, finished)
            _call(items[0].job, _deliver, items, rows)
        return time.perf_counter()

    def _note(self, items: list[_Item], start: float, finished: float) -> None:
        """Learns from a batch how long an image takes: in the model, and from one to the next where they queue.

        The latter holds all that they compete for, decoding and refusals too. It counts from the end of the worker's
        batch before, or from the first image's acceptance where there was nothing to do.
        """
        now = time.perf_counter()
        began = max(finished, min(item.job.accepted for item in items))
        self._computing = _follow(self._computing, (now - start) / len(items))
        self._seconds = _follow(self._seconds, (now - began) / len(items) / self.workers)


def _follow(mean: float, newest: float) -> float:
    """Returns the running mean with one more value; the first is taken as it is."""
    return mean + _MEMORY * (min(newest, _HICCUP * mean) - mean) if mean else newest


def largest_batch(
    compute: Compute, image: Image, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> tuple[int, float]:
    """Returns the power of two of images beyond which a model is hardly quicker an image, and the time of each then.

    Larger batches would only take longer. The model is run on every size up to it, so that what is compiled once is
    compiled now, and on none that takes longer than some seconds by some clock, but for one image.
    """
    times: dict[int, float] = {}  # of an image, by the size of its batch
    size = 1
    while size <= _LARGEST:
        batch = np.repeat(image[None], size, 0)
        compute(batch)
        duration = min(_time(compute, batch, clock) for _ in range(3))
        if size == 1 or duration <= seconds:
            times[size] = duration / size
        if duration > seconds:
            break
        size *= 2
    best = min(times.values())
    return next((size, each) for size, each in times.items() if each <= _HARDLY * best)


def _time(compute: Compute, batch: UInt8[np.ndarray, "b h w c"], clock: Callable[[], float]) -> float:
    start = clock()
    compute(batch)
    return clock() - start


def _call(job: Job, function: Callable[..., None], *arguments: object) -> None:
    try:
        job.future.get_loop().call_soon_threadsafe(function, *arguments)
    except RuntimeError:  # the loop is closed: nobody waits any more
        _log.debug("an answer came after the end")


def _deliver(items: list[_Item], rows: Float32[np.ndarray, "b columns"]) -> None:
    for item, row in zip(items, rows, strict=True):
        job = item.job
        job.rows[item.position] = row
        job.missing -= 1
        if not job.missing and not job.future.done():
            job.future.set_result(np.stack([row for row in job.rows if row is not None]))


def _fail(jobs: list[Job], error: Exception) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_exception(error)
