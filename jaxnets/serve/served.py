"""One model that is served: what answers for it now, and how a newer checkpoint takes over."""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from jaxnets.answer import thresholds_of
from jaxnets.run.storage import BUCKET, open_place
from jaxnets.serve.limits import Limits
from jaxnets.serve.loaded import Loaded, Open, open_loaded
from jaxnets.serve.meters import Meters
from jaxnets.serve.source import Source

_log = logging.getLogger(__name__)

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

    def describe(self) -> dict[str, Any]:
        """Returns what GET /v1/models says of it."""
        predictor = self.current.predictor
        size = predictor.preprocess
        return {
            "name": self.name,
            "architecture": predictor.name,
            "step": predictor.step,
            "engine": predictor.engine.name,
            "activation": predictor.activation,
            "labels": list(predictor.labels),
            "thresholds": thresholds_of(predictor),
            "temperature": predictor.temperature,
            "refusal": None if predictor.refusal is None else dataclasses.asdict(predictor.refusal),
            "input": {"height": size.height, "width": size.width, "channels": size.channels},
            "batch": self.current.batcher.largest,
            "workers": self.current.batcher.workers,
        }

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

    def end(self) -> None:
        """Ends a model that nothing was asked of."""
        self.current.batcher.stop()
        self._meters.forget(self.name)

    async def retire(self) -> None:
        """Answers whoever holds the model, and ends it; nobody else must come."""
        loaded = self.current
        loaded.last = True
        if not loaded.users:
            loaded.retired.set()
        await _retire(loaded)
        self._meters.forget(self.name)

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


async def _retire(old: Loaded) -> None:
    await old.retired.wait()
    await old.batcher.close()
