"""A model in memory: how it is opened and timed, and what it is asked."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxnets.cores import cores
from jaxnets.errors import UserError
from jaxnets.explain.methods import METHODS, find_method
from jaxnets.explain.overlay import sheet
from jaxnets.monitor.observe import Observer
from jaxnets.preprocess import with_channels
from jaxnets.serve.admission import Admission
from jaxnets.serve.batcher import Batcher, Compute, largest_batch
from jaxnets.serve.cache import identity_of
from jaxnets.serve.images import Upload, open_image
from jaxnets.serve.limits import Limits, Refused
from jaxnets.serve.memory import give_back
from jaxnets.serve.source import Source

if TYPE_CHECKING:
    from jaxnets.classifier import Classifier

_log = logging.getLogger(__name__)

_SHARE = 0.4  # of the latency target that a batch may take: an image waits for the batch before its own
_WARMED = 4  # times that share: batches that are compiled, in case that the machine is less busy later on
_LONGEST_SIDE = 768  # pixels of an explained image

Open = Callable[[str, str | int], "Classifier"]  # (a run or a name, its checkpoint)


@dataclass(eq=False)
class Loaded:
    """A model in memory, with the batcher that feeds it."""

    predictor: "Classifier"
    batcher: Batcher
    observer: Observer | None = None  # where answers are recorded
    columns: int = 0  # of a row
    identity: bytes = b""  # that kept answers go by (`jaxnets.serve.cache`)
    users: int = 0  # requests that hold it
    retired: asyncio.Event = field(default_factory=asyncio.Event)  # nobody holds it and nobody will
    last: bool = False

    def prepare(
        self, upload: Upload, limits: Limits, sizes: list[tuple[int, int]] | None = None, number: int = 0
    ) -> UInt8[np.ndarray, "h w c"]:
        """Returns one file as the model wants it; notes its height and width in `sizes`, at its number."""
        image = open_image(upload, limits, self._white)
        if sizes is not None:
            sizes[number] = image.shape[0], image.shape[1]
        return self.predictor.preprocess.fit(image)

    @property
    def _white(self) -> int:
        return self.predictor.preprocess.white_level

    def explain(
        self, upload: Upload, limits: Limits, label: str | None, stage: str | None, method: str | None = None
    ) -> Image.Image:
        """Returns an image beside its overlay, or those of several labels of the answer."""
        shown = Image.fromarray(with_channels(open_image(upload, limits, self._white), 3))
        shown.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
        image = np.asarray(shown)
        try:
            if method is not None and not find_method(method).quick:
                raise UserError(
                    f"{method} takes too long for a service ({find_method(method).cost}): ask for "
                    f"{', '.join(name for name, found in METHODS.items() if found.quick)}, or use "
                    "python -m jaxnets.explain"
                )
            explained = self.predictor.explain_answer(image, label, stage, method=method)
        except UserError as error:
            raise Refused(422, "unknown_label_or_stage", str(error)) from error
        panels = [found.panel(self.predictor.labels) for found in explained]
        return sheet(image, panels, self.predictor.preprocess.region(*image.shape[:2]))


def open_loaded(
    source: Source,
    checkpoint: str | int,
    open_: Open,
    limits: Limits,
    pool: ThreadPoolExecutor,
    on_batch: Callable[[int], None],
    on_pending: Callable[[int], None],
    *,
    recorded: bool = False,
) -> Loaded:
    """Opens a checkpoint and runs it once, so that its first request is as quick as the next.

    Images are decoded in `pool`; `on_batch` is called with the size of each batch, `on_pending` with how many
    more images have no answer. Where it is to be `recorded`, rows hold what records need behind what answers do.

    Raises:
        UserError: if it cannot be read, or answers with what is no probability.
    """
    # A call on one core never waits for a thread that decodes: where each is in time, one a core answer more.
    predictor = open_(source.path, checkpoint).with_threads(1)
    if recorded:
        predictor = predictor.observing()
    size = predictor.preprocess
    blank = np.full((size.height, size.width, size.channels), 128, np.uint8)
    batch_seconds = _SHARE * limits.latency
    if not np.isfinite(predictor.rows_of_fitted(blank[None])).all():
        raise UserError(f"{source.path} gives no finite probabilities: train it anew, or take another step")
    # What one thread computes takes as long on a busy machine, by that thread's own clock.
    clock = time.thread_time if predictor.engine.threads == 1 else time.perf_counter
    observer, compute = _computing(predictor, source.name, recorded)
    most, seconds = largest_batch(compute, blank, _WARMED * batch_seconds, clock)
    if predictor.engine.threads == 1 and seconds > limits.latency:
        predictor = predictor.with_threads(None)
        observer, compute = _computing(predictor, source.name, recorded)
        most, seconds = largest_batch(compute, blank, _WARMED * batch_seconds)
    workers = cores() if predictor.engine.threads == 1 else 1
    admission = Admission(
        wait=limits.wait,
        capacity=limits.queue,
        burst=limits.burst,
        burst_seconds=limits.burst_seconds,
        workers=workers,
    )
    batcher = Batcher(
        compute,
        workers=workers,
        most=most,
        batch_seconds=batch_seconds,
        admission=admission,
        pool=pool,
        on_batch=on_batch,
        on_pending=on_pending,
        seconds_per_image=seconds,
    )
    predictor.engine.shrink(blank[None])  # after the batches that were tried
    give_back()
    _log.info(
        "%s: %d × up to %d images at once, %.1f ms each; in an overload %d may wait",
        source.name, workers, batcher.largest, 1e3 * seconds, admission.lasting(seconds / workers),
    )  # fmt: skip
    identity = identity_of(predictor, source.name, recorded=recorded)
    return Loaded(predictor, batcher, observer, compute(blank[None]).shape[1], identity)


def _computing(predictor: "Classifier", name: str, recorded: bool) -> tuple[Observer | None, Compute]:
    """Returns what makes records of a model, where it is recorded, and what computes its rows."""
    if not recorded:
        return None, predictor.rows_of_fitted
    observer = Observer(predictor, name)
    return observer, observer.rows
