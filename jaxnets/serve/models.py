"""The models that are served: which names they go by, and what runs beside the predictions."""

import asyncio
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from jaxnets.cores import cores
from jaxnets.errors import UserError, nearest, quoted
from jaxnets.monitor.recorder import Recorder
from jaxnets.serve.admission import Overloaded
from jaxnets.serve.cached import Cache
from jaxnets.serve.limits import Limits, Refused, overloaded
from jaxnets.serve.loaded import Open
from jaxnets.serve.memory import give_back
from jaxnets.serve.meters import Meters
from jaxnets.serve.rollout.options import Options
from jaxnets.serve.rollout.rollouts import Rollouts
from jaxnets.serve.served import ServedModel
from jaxnets.serve.source import Source, Split

_ASIDE = 8  # explanations and embeddings that wait, at most


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
        rollout: Options | None = None,
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
        rollout = rollout or Options()
        rollout.check(sources, splits)
        self.limits = limits
        self.meters = meters or Meters()
        self.recorder = recorder
        self.cache = cache
        # Decoding runs outside of Python's lock: a thread a core.
        self._open = open_
        self._pool = ThreadPoolExecutor(max(2, cores()), "decode")
        self._aside = ThreadPoolExecutor(1, "aside")
        self._waiting_aside = 0
        self.splits = {split.name: split for split in splits}
        self._random = random.Random(seed)
        self._watchers: list[asyncio.Task[None]] = []
        self._retiring: list[asyncio.Task[None]] = []
        self.served = {source.name: self.open(source) for source in sources}
        self.rollouts = Rollouts(self, rollout, seed)

    @property
    def names(self) -> list[str]:
        return [*self.served, *self.splits, *self.rollouts.names]

    def open(self, source: Source) -> ServedModel:
        """Opens a model, which is not served yet."""
        return ServedModel(source, self._open, self.limits, self.meters, self._pool, recorded=self.recorder is not None)

    def remove(self, name: str) -> None:
        """Serves a model no longer; it answers those who have it."""
        self._retiring = [task for task in self._retiring if not task.done()]
        self._retiring.append(asyncio.create_task(self.served.pop(name).retire()))

    async def idle(self) -> None:
        """Waits until no model has anything to answer."""
        while busy := [served for served in self.served.values() if served.current.batcher.pending]:
            await busy[0].current.batcher.idle()

    def find(self, name: str) -> ServedModel:
        """Returns the model that answers a request to a name; of a traffic split, one of them at random.

        Raises:
            Refused: 404, if there is none.
        """
        if standing := self.rollouts.models_of(name):
            return standing[0]
        if split := self.splits.get(name):
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
        names = self.splits[name].shares if name in self.splits else [name] if name in self.served else []
        models = self.rollouts.models_of(name) or [self.served[one] for one in names]
        found = [served.current.batcher.refuse() for served in models]
        return min(filter(None, found), key=lambda error: error.seconds) if found and all(found) else None

    def describe(self) -> list[dict[str, Any]]:
        """Returns what GET /v1/models lists."""
        models: list[dict[str, Any]] = []
        for name, served in self.served.items():
            models.append({**served.describe(), **self.rollouts.describe(name)})
        models += [
            {"name": split.name, "split": dict(split.shares), **self.rollouts.describe(split.name)}
            for split in self.splits.values()
        ]
        models += [{"name": name, **self.rollouts.describe(name)} for name in self.rollouts.names]
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
        self.rollouts.start()
        if self.cache is not None:
            self._watchers.append(asyncio.create_task(self.cache.store.start()))

    async def close(self) -> None:
        """Answers what was accepted, and ends."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        await self.rollouts.close()
        await asyncio.gather(*self._retiring, *(served.close() for served in self.served.values()))
        if self.cache is not None:
            await self.cache.store.close()
        self._aside.shutdown(cancel_futures=True)
        self._pool.shutdown()
        if self.recorder is not None:
            await asyncio.to_thread(self.recorder.close)
