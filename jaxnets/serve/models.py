"""The models that are served: which names they go by, and how a newer checkpoint takes over."""

import asyncio
import dataclasses
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from jaxnets.answer import thresholds_of
from jaxnets.cores import cores
from jaxnets.errors import UserError, nearest, quoted
from jaxnets.monitor.recorder import Recorder
from jaxnets.run.storage import BUCKET, open_place
from jaxnets.serve.admission import Overloaded
from jaxnets.serve.cached import Cache
from jaxnets.serve.limits import Limits, Refused, overloaded
from jaxnets.serve.loaded import Loaded, Open, open_loaded
from jaxnets.serve.memory import give_back
from jaxnets.serve.meters import Meters
from jaxnets.serve.source import Source, Split

_log = logging.getLogger(__name__)

_ASIDE = 8  # explanations and embeddings that wait, at most
_POLL, _POLL_BUCKET = 2.0, 30.0  # seconds between looks at a run directory, and where each look is paid for
_RETRIES = (4.0, 300.0)  # seconds until a refused checkpoint is tried again: at first, and at most


class ServedModel:
    """One name and what answers for it now."""

    def __init__(
        self,
        source: Source,
        open_: Open,
        limits: Limits,
        meters: Meters,
        pool: ThreadPoolExecutor,
        *,
        recorded: bool = False,
    ) -> None:
        self.source = source
        self._recorded = recorded
        self._open = open_
        self._limits = limits
        self._meters = meters
        self._pool = pool
        self._refused: dict[int, tuple[float, float]] = {}  # step: when to try it again, and after which pause
        self._seen: list[int] = []  # steps of the run directory at the last look
        self._old: list[asyncio.Task[None]] = []
        self.current = self._load(source.checkpoint)
        meters.loaded(source.name, self.current.predictor.step)
        if recorded:  # a series that begins with its first loss hides it
            meters.dropped(source.name, 0)

    @property
    def name(self) -> str:
        return self.source.name

    @contextmanager
    def lease(self) -> Iterator[Loaded]:
        """Holds the model of this moment; a newer one takes over meanwhile without closing it."""
        loaded = self.current
        loaded.users += 1
        try:
            yield loaded
        finally:
            loaded.users -= 1
            if loaded.last and not loaded.users:
                loaded.retired.set()

    async def watch(self) -> None:
        """Looks for a newer checkpoint, for ever."""
        pause = _POLL_BUCKET if self.source.path.startswith(BUCKET) else _POLL
        while True:
            await asyncio.sleep(pause)
            try:
                await self.refresh()
            except Exception:  # of a poll: the model at hand goes on
                _log.exception("%s: looking for a newer checkpoint failed", self.name)

    async def refresh(self) -> bool:
        """Takes over a newer checkpoint, if there is one that can be read; says whether."""
        step = await asyncio.to_thread(self._newer)
        if step is None:
            return False
        try:
            loaded = await asyncio.to_thread(self._load, step)
        except Exception as error:  # whatever a damaged checkpoint leads to
            _, pause = self._refused.get(step, (0.0, _RETRIES[0] / 2))
            if step not in self._refused:
                _log.warning(
                    "%s: step %d is refused, step %s goes on: %s", self.name, step, self.current.predictor.step, error
                )
            pause = min(2 * pause, _RETRIES[1])
            self._refused[step] = (time.monotonic() + pause, pause)
            return False
        self.current, old = loaded, self.current
        self._refused.pop(step, None)
        self._meters.loaded(self.name, step)
        _log.info("%s: step %d takes over from step %s", self.name, step, old.predictor.step)
        old.last = True
        if not old.users:
            old.retired.set()
        self._old = [task for task in self._old if not task.done()]
        self._old.append(asyncio.create_task(_retire(old)))
        return True

    async def close(self) -> None:
        """Answers what was accepted and ends the threads."""
        await asyncio.gather(*self._old, self.current.batcher.close())

    def _newer(self) -> int | None:
        """Returns the step that should answer, if it is not the one that does."""
        from jaxnets.run.checkpoints import choose, steps

        served = self.current.predictor.step
        if served is None or self.source.checkpoint not in ("best", "newest"):
            return None
        directory = open_place(self.source.path) / "checkpoints"
        found = steps(directory)
        now = time.monotonic()
        if not found or (found == self._seen and not any(when <= now for when, _ in self._refused.values())):
            return None
        self._seen = found
        self._refused = {step: entry for step, entry in self._refused.items() if step in found}
        step = choose(directory, self.source.checkpoint)
        waits = step in self._refused and self._refused[step][0] > now
        return None if step == served or waits else step

    def _load(self, checkpoint: str | int) -> Loaded:
        return open_loaded(
            self.source, checkpoint, self._open, self._limits, self._pool,
            self._meters.batch_of(self.name), self._meters.queue_of(self.name), recorded=self._recorded,
        )  # fmt: skip


def _tidily(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what a function does, and gives back the memory that a compiler may have taken for it."""
    try:
        return function(*arguments)
    finally:
        give_back()


class Models:
    """All that is served, by name."""

    def __init__(
        self,
        sources: Sequence[Source],
        splits: Sequence[Split] = (),
        *,
        open_: Open,
        limits: Limits,
        meters: Meters | None = None,
        recorder: Recorder | None = None,
        cache: Cache | None = None,
        seed: int | None = None,
    ) -> None:
        names = [source.name for source in sources] + [split.name for split in splits]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise UserError(f"the name {min(doubled)} is given twice: write NAME=MODEL to tell them apart")
        for split in splits:
            if unknown := [name for name in split.shares if name not in {source.name for source in sources}]:
                raise UserError(
                    f"--split {split.name} names {unknown[0]!r}, which is not served{nearest(unknown[0], names)}: "
                    f"give it with --model {unknown[0]}=…"
                )
        self.limits = limits
        self.meters = meters or Meters()
        self.recorder = recorder
        self.cache = cache
        # Decoding runs outside of Python's lock: a thread a core.
        self._pool = ThreadPoolExecutor(max(2, cores()), "decode")
        self._aside = ThreadPoolExecutor(1, "aside")
        self._waiting_aside = 0
        self._splits = {split.name: split for split in splits}
        self._random = random.Random(seed)
        self._watchers: list[asyncio.Task[None]] = []
        self.served = {
            source.name: ServedModel(source, open_, limits, self.meters, self._pool, recorded=recorder is not None)
            for source in sources
        }

    @property
    def names(self) -> list[str]:
        return [*self.served, *self._splits]

    def find(self, name: str) -> ServedModel:
        """Returns the model that answers a request to a name; of a traffic split, one of them at random.

        Raises:
            Refused: 404, if there is none.
        """
        if split := self._splits.get(name):
            (name,) = self._random.choices(list(split.shares), list(split.shares.values()))
        if name not in self.served:
            raise Refused(
                404, "no_such_model", f"there is no model {quoted(name)}: GET /v1/models lists {', '.join(self.names)}"
            )
        return self.served[name]

    def refuse(self, name: str) -> Overloaded | None:
        """Returns why no request to a name has room now; None where one has, or there is no such name.

        With a cache each request may have room: what is kept takes none.
        """
        if self.cache is not None:
            return None
        names = self._splits[name].shares if name in self._splits else [name] if name in self.served else []
        found = [self.served[one].current.batcher.refuse() for one in names]
        return min(filter(None, found), key=lambda error: error.seconds) if found and all(found) else None

    def describe(self) -> list[dict[str, Any]]:
        """Returns what GET /v1/models lists."""
        models: list[dict[str, Any]] = []
        for name, served in self.served.items():
            predictor = served.current.predictor
            size = predictor.preprocess
            models.append(
                {
                    "name": name,
                    "architecture": predictor.name,
                    "step": predictor.step,
                    "engine": predictor.engine.name,
                    "activation": predictor.activation,
                    "labels": list(predictor.labels),
                    "thresholds": thresholds_of(predictor),
                    "temperature": predictor.temperature,
                    "refusal": None if predictor.refusal is None else dataclasses.asdict(predictor.refusal),
                    "input": {"height": size.height, "width": size.width, "channels": size.channels},
                    "batch": served.current.batcher.largest,
                    "workers": served.current.batcher.workers,
                }
            )
        models += [{"name": split.name, "split": dict(split.shares)} for split in self._splits.values()]
        return models

    async def aside(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Runs what is rare and slow, one after another, beside the predictions.

        Raises:
            Refused: 503, if too much of it waits.
        """
        if self._waiting_aside >= _ASIDE:
            raise overloaded(Overloaded(f"{_ASIDE} explanations and embeddings wait: try again later", 1.0))
        self._waiting_aside += 1
        try:
            running = self._aside.submit(partial(_tidily, function, *arguments))
        except BaseException:
            self._waiting_aside -= 1
            raise
        loop = asyncio.get_running_loop()

        def left(_: Any) -> None:
            self._waiting_aside -= 1

        running.add_done_callback(lambda done: loop.call_soon_threadsafe(left, done))
        return await asyncio.wrap_future(running)  # cancelled before its turn, it is not run

    def start(self) -> None:
        """Begins to watch the run directories, and to ask the cache."""
        self.meters.answering()
        self._watchers = [asyncio.create_task(served.watch()) for served in self.served.values()]
        if self.cache is not None:
            self._watchers.append(asyncio.create_task(self.cache.store.start()))

    async def close(self) -> None:
        """Answers what was accepted, and ends."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        await asyncio.gather(*(served.close() for served in self.served.values()))
        if self.cache is not None:
            await self.cache.store.close()
        self._aside.shutdown(cancel_futures=True)
        self._pool.shutdown()
        if self.recorder is not None:
            await asyncio.to_thread(self.recorder.close)


async def _retire(old: Loaded) -> None:
    await old.retired.wait()
    await old.batcher.close()
