"""The features of a split: what the model's head sees of each image, computed once and kept."""

import os
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64

from jaxnets.data.examples import Examples
from jaxnets.data.sources import Split
from jaxnets.engine.backbone import Backbone
from jaxnets.errors import UserError
from jaxnets.finetune.kept import Kept, Rows
from jaxnets.finetune.views import views_of
from jaxnets.train.stop import Stopped

_COPIES = 4  # of the features, that solving needs at its peak
_KEPT_EVERY = 5.0  # seconds of work that a kill may lose


class Features(NamedTuple):
    vectors: Float32[np.ndarray, "n v f"]  # of each example in each view
    readable: Bool[np.ndarray, " n"]  # False: the image cannot be decoded, and its vectors are 0


class _Wanted(NamedTuple):
    """What has to be computed of one image."""

    example: int
    views: tuple[int, ...]


def features_of(
    backbone: Backbone,
    examples: Examples,
    views: int,
    *,
    root: Path | None,
    source: str,
    name: str,
    threads: int,
    say: Callable[[str], None] = lambda text: None,
    advance: Callable[[int, int], None] = lambda done, total: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Features:
    """Returns the features of all examples, each in `views` views, from what is kept under `root` as far as it goes.

    Args:
        backbone: what computes them.
        examples: fitted as evaluation does.
        views: 1 or more (`jaxnets.finetune.views`).
        root: folder of the features that are kept; None: none are.
        source: what the data is called in config.data.source, and `name` the split, for messages.
        name: as above.
        threads: that read images, and on a CPU compute.
        say: is told why kept ones cannot be used.
        advance: is told how many vectors are computed, of how many.
        stopping: asked between batches; what is computed by then is kept.

    Raises:
        UserError: for an image that cannot be read, unless such are skipped, and for more than the memory holds.
        Stopped: where `stopping` said so.
    """
    needed, there_is = len(examples) * views * backbone.numbers * 4, _memory()
    if needed * _COPIES > there_is:
        raise UserError(
            f"the features of {len(examples):,} {name} images in {views} views take {needed / 2**30:.1f} GiB, and "
            f"{_COPIES} times that while a head is solved; this machine has {there_is / 2**30:.1f} GiB: set "
            f"config.finetune.views to 1, config.data.shots to some, or train without a solved head "
            f"(config.finetune.method=None)"
        )
    split, chosen = examples.stored
    vectors = np.zeros((len(examples), views, backbone.numbers), np.float32)
    there = np.zeros((len(examples), views), bool)
    kept = None if root is None else Kept(root, _about(backbone, split, source, name))
    if kept is not None:
        if why := kept.why_none():
            say(f"the features that are kept of {source} are of {why}: they are computed anew")
        _fill(kept.read(backbone.numbers), chosen, vectors, there)
    missing = [_Wanted(i, tuple(np.flatnonzero(~row).tolist())) for i, row in enumerate(there) if not row.all()]
    readable = np.ones(len(examples), bool)
    total, done = sum(len(wanted.views) for wanted in missing), 0
    fresh: list[tuple[int, int]] = []
    last = time.monotonic()

    def keep() -> None:
        if kept is not None and fresh:
            which, view = (np.asarray(numbers) for numbers in zip(*fresh, strict=True))
            kept.add(Rows(chosen[which], view.astype(np.int32), vectors[which, view]))
            fresh.clear()

    try:
        for wanted, computed in _compute(backbone, examples, missing, views, max(threads, 1), stopping):
            for (example, which), vector in zip(wanted, computed, strict=True):
                if vector is None:
                    readable[example] = False
                    done += len(which)
                    continue
                for view, numbers in zip(which, vector, strict=True):
                    vectors[example, view] = numbers
                    fresh.append((example, view))
                done += len(which)
            advance(done, total)
            if time.monotonic() > last + _KEPT_EVERY:
                keep()
                last = time.monotonic()
    finally:
        keep()
    if done < total:
        raise Stopped
    return Features(vectors, readable)


def _memory() -> int:
    """Returns the bytes of memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _about(backbone: Backbone, split: Split, source: str, name: str) -> dict[str, Any]:
    everything = np.arange(len(split))
    data = zlib.crc32(np.ascontiguousarray(split.identities).data, len(split))
    return {
        "model": backbone.name,
        "source": source,
        "split": name,
        "weights": backbone.checksum,
        "preprocess": backbone.preprocess.to_json(),
        "data": f"{len(split)}-{data:08x}-{split.content_crc32(everything):08x}",
    }


def _fill(found: list[Rows], chosen: Int64[np.ndarray, " n"], vectors: np.ndarray, there: np.ndarray) -> None:
    """Takes what is wanted of the rows that are kept."""
    order = np.argsort(chosen)
    for rows in found:
        at = np.searchsorted(chosen, rows.index, sorter=order)
        at = order[np.minimum(at, len(order) - 1)]
        usable = (chosen[at] == rows.index) & (rows.view >= 0) & (rows.view < there.shape[1])
        vectors[at[usable], rows.view[usable]] = rows.vectors[usable]
        there[at[usable], rows.view[usable]] = True


_Computed = tuple[list[_Wanted], list[np.ndarray | None]]


def _compute(
    backbone: Backbone,
    examples: Examples,
    missing: list[_Wanted],
    views: int,
    threads: int,
    stopping: Callable[[], bool],
) -> Iterator[_Computed]:
    """Yields what is wanted of some images with the vectors of each; None for an image that is not readable."""
    if not missing:
        return
    embedder, identities = backbone.embedder, examples.stored[0].identities[examples.stored[1]]
    per_batch = max(embedder.batch_size // len(missing[0].views), 1)

    def read(wanted: list[_Wanted]) -> list[list[np.ndarray] | None]:
        found: list[list[np.ndarray] | None] = []
        for example, which in wanted:
            fits = views_of(backbone.preprocess, views, int(identities[example]))
            found.append(examples.read_views(example, [fits[view] for view in which]))
        return found

    def embed(wanted: list[_Wanted], images: list[list[np.ndarray] | None]) -> _Computed:
        flat = [image for each in images if each is not None for image in each]
        parts = [
            embedder.embed(np.stack(flat[start : start + embedder.batch_size]))
            for start in range(0, len(flat), embedder.batch_size)
        ]
        rows = iter(np.concatenate(parts)) if parts else iter(())
        return wanted, [None if each is None else np.stack([next(rows) for _ in each]) for each in images]

    def whole(wanted: list[_Wanted]) -> _Computed:
        return embed(wanted, read(wanted))

    batches = iter([missing[start : start + per_batch] for start in range(0, len(missing), per_batch)])
    ahead: deque[tuple[list[_Wanted], Future[Any]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="features") as pool:

        def start() -> None:
            batch = next(batches, None)
            if batch is not None:
                ahead.append((batch, pool.submit(whole if embedder.side_by_side else read, batch)))

        try:
            for _ in range(3 * threads):
                start()
            while ahead and not stopping():
                batch, future = ahead.popleft()
                found = future.result()
                start()
                yield found if embedder.side_by_side else embed(batch, found)
        finally:
            for _, future in ahead:
                future.cancel()
