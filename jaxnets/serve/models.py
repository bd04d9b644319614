"""The models that are served: which names they go by, and how a newer checkpoint takes over."""

import asyncio
import logging
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from jaxnets.cores import cores
from jaxnets.errors import UserError, nearest, quoted
from jaxnets.explain.overlay import sheet
from jaxnets.preprocess import with_channels
from jaxnets.run.resolve import resolve
from jaxnets.run.storage import BUCKET, open_place
from jaxnets.serve.batcher import Batcher, largest_batch
from jaxnets.serve.images import Upload, open_image
from jaxnets.serve.limits import Limits, Refused
from jaxnets.serve.memory import give_back
from jaxnets.serve.meters import Meters

if TYPE_CHECKING:
    from jaxnets.classifier import Classifier

_log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHARE = 0.4  # of the latency target that a batch may take: an image waits for the batch before its own
_WARMED = 4  # times that share: batches that are compiled, in case that the machine is less busy later on
_WAIT = 1.6  # latency targets of waiting, beyond which requests are refused
_ASIDE = 8  # explanations and embeddings that wait, at most
_LONGEST_SIDE = 768  # pixels of an explained image
_POLL, _POLL_BUCKET = 2.0, 30.0  # seconds between looks at a run directory, and where each look is paid for
_RETRIES = (4.0, 300.0)  # seconds until a refused checkpoint is tried again: at first, and at most


Open = Callable[[str, str | int], "Classifier"]  # (a run or a name, its checkpoint)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a served model comes from."""

    name: str
    path: str  # that `jaxnets.load` opens
    checkpoint: str | int = "best"

    @classmethod
    def parse(cls, text: str, checkpoint: str | int = "best") -> "Source":
        """Reads `MODEL` or `NAME=MODEL` (see `jaxnets.run.resolve`)."""
        found = resolve(text)
        if not _NAME.fullmatch(found.name):
            raise UserError(
                f"--model {text}: a name has letters, digits, '.', '_' and '-', found {found.name!r}: NAME=MODEL"
            )
        return cls(name=found.name, path=str(found), checkpoint=checkpoint)


@dataclass(frozen=True)
class Split:
    """A name whose requests go to several models, each with its share."""

    name: str
    shares: Mapping[str, float]  # add up to 1

    @classmethod
    def parse(cls, text: str) -> "Split":
        """Reads `NAME=A:0.9,B:0.1`."""
        name, _, parts = text.partition("=")
        try:
            shares = {part.rpartition(":")[0]: float(part.rpartition(":")[2]) for part in parts.split(",")}
        except ValueError:
            shares = {}
        right = shares and all(0 <= share <= 1 for share in shares.values()) and abs(sum(shares.values()) - 1) < 1e-6
        if not _NAME.fullmatch(name) or not right:
            raise UserError(f"--split must be NAME=A:0.9,B:0.1 with shares that add up to 1, found {text!r}")
        return cls(name, shares)


@dataclass(eq=False)
class Loaded:
    """A model in memory, with the batcher that feeds it."""

    predictor: "Classifier"
    batcher: Batcher
    users: int = 0  # requests that hold it
    retired: asyncio.Event = field(default_factory=asyncio.Event)  # nobody holds it and nobody will
    last: bool = False
    _embed: Any = None

    def prepare(self, upload: Upload, limits: Limits) -> UInt8[np.ndarray, "h w c"]:
        """Returns one file as the model wants it."""
        return self.predictor.preprocess.fit(open_image(upload, limits))

    def embed(self, fitted: UInt8[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b f"]:
        """Returns what the last stage says of images, averaged over rows and columns."""
        import jax
        import jax.numpy as jnp

        model, preprocess = self.predictor.model, self.predictor.preprocess
        if self._embed is None:

            def pooled(variables: Any, images: jax.Array) -> jax.Array:
                x = preprocess.normalise(images, model.dtype)
                features: Any = model.apply(variables, x, method="features")
                return list(features.values())[-1].mean((1, 2)).astype(jnp.float32)

            self._embed = jax.jit(pooled)
        padding = (1 << (len(fitted) - 1).bit_length()) - len(fitted)
        padded = np.pad(fitted, ((0, padding), (0, 0), (0, 0), (0, 0)))
        return np.asarray(self._embed(self.predictor.variables, padded))[: len(fitted)]

    def explain(self, upload: Upload, limits: Limits, label: str | None, stage: str | None) -> Image.Image:
        """Returns an image beside its Grad-CAM overlay."""
        shown = Image.fromarray(with_channels(open_image(upload, limits), 3))
        shown.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
        image = np.asarray(shown)
        try:
            (found,) = self.predictor.explain_batch([image], [label], stage=stage)
        except UserError as error:
            raise Refused(422, "unknown_label_or_stage", str(error)) from error
        name = self.predictor.labels[found.label]
        return sheet(image, found.heat, f"{name}  {found.probability:.1%}")


class ServedModel:
    """One name and what answers for it now."""

    def __init__(self, source: Source, open_: Open, limits: Limits, meters: Meters, pool: ThreadPoolExecutor) -> None:
        self.source = source
        self._open = open_
        self._limits = limits
        self._meters = meters
        self._pool = pool
        self._refused: dict[int, tuple[float, float]] = {}  # step: when to try it again, and after which pause
        self._seen: list[int] = []  # steps of the run directory at the last look
        self._old: list[asyncio.Task[None]] = []
        self.current = self._load(source.checkpoint)
        meters.watch_queue(source.name, lambda: self.current.batcher.pending)
        meters.loaded(source.name, self.current.predictor.step)

    @property
    def name(self) -> str:
        return self.source.name

    @contextmanager
    def lease(self) -> Iterator[Loaded]:
        """Holds the model of this moment; a newer one takes its place meanwhile without closing it."""
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
        """Opens a checkpoint and runs it once, so that its first request is as quick as the next."""
        # A call on one core never waits for a thread that decodes: where each is in time, one a core answer more.
        predictor = self._open(self.source.path, checkpoint).with_threads(1)
        size = predictor.preprocess
        blank = np.full((size.height, size.width, size.channels), 128, np.uint8)
        batch_seconds = _SHARE * self._limits.latency
        if not np.isfinite(predictor.engine.probabilities(blank[None])).all():
            raise UserError(f"{self.source.path} gives no finite probabilities: train it anew, or take another step")
        # What one thread computes takes as long on a busy machine, by that thread's own clock.
        clock = time.thread_time if predictor.engine.threads == 1 else time.perf_counter
        most, seconds = largest_batch(predictor.engine.probabilities, blank, _WARMED * batch_seconds, clock)
        if predictor.engine.threads == 1 and seconds > self._limits.latency:
            predictor = predictor.with_threads(None)
            most, seconds = largest_batch(predictor.engine.probabilities, blank, _WARMED * batch_seconds)
        batcher = Batcher(
            predictor.engine.probabilities,
            workers=cores() if predictor.engine.threads == 1 else 1,
            most=most,
            batch_seconds=batch_seconds,
            wait=_WAIT * self._limits.latency,
            capacity=self._limits.queue,
            pool=self._pool,
            on_batch=self._meters.batch_of(self.name),
            seconds_per_image=seconds,
        )
        give_back()
        _log.info(
            "%s: %d × up to %d images at once, %.1f ms each",
            self.name, batcher.workers, batcher.largest, 1e3 * seconds,
        )  # fmt: skip
        return Loaded(predictor, batcher)


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
        # Decoding runs outside of Python's lock: a thread a core.
        self._pool = ThreadPoolExecutor(max(2, cores()), "decode")
        self._aside = ThreadPoolExecutor(1, "aside")
        self._waiting_aside = 0
        self._splits = {split.name: split for split in splits}
        self._random = random.Random(seed)
        self._watchers: list[asyncio.Task[None]] = []
        self.served = {source.name: ServedModel(source, open_, limits, self.meters, self._pool) for source in sources}

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

    def full(self, name: str) -> float:
        """Returns after how many seconds there is room for a request to a name; 0 if there is, or no such name."""
        names = self._splits[name].shares if name in self._splits else [name] if name in self.served else []
        return min((self.served[one].current.batcher.full() for one in names), default=0.0)

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
                    "labels": list(predictor.labels),
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
            raise overloaded(1.0)
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
        """Begins to watch the run directories."""
        self._watchers = [asyncio.create_task(served.watch()) for served in self.served.values()]

    async def close(self) -> None:
        """Answers what was accepted, and ends."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        await asyncio.gather(*(served.close() for served in self.served.values()))
        self._aside.shutdown(cancel_futures=True)
        self._pool.shutdown()


def overloaded(seconds: float) -> Refused:
    return Refused(
        503,
        "overloaded",
        "more is waiting than can be answered in time: try again later, as Retry-After says",
        {"Retry-After": str(max(1, round(seconds)))},
    )


async def _retire(old: Loaded) -> None:
    await old.retired.wait()
    await old.batcher.close()
