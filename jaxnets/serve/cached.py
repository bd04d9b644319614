"""The rows of a request's images: those that are kept, and the others computed."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from jaxnets.serve.admission import Overloaded
from jaxnets.serve.cache import Entry, Store, decode, encode, key_of
from jaxnets.serve.images import Upload
from jaxnets.serve.limits import Limits, overloaded
from jaxnets.serve.loaded import Loaded
from jaxnets.serve.meters import Meters

if TYPE_CHECKING:
    import asyncio

Rows = Float32[np.ndarray, "n columns"]
Wait = Callable[["asyncio.Future[Rows]"], Awaitable[Rows]]


class Cache:
    """A store, and the figures of its use."""

    def __init__(self, store: Store, meters: Meters) -> None:
        self.store = store
        self._meters = meters

    async def look_up(self, name: str, loaded: Loaded, keys: Sequence[bytes], max_pixels: int) -> list[Entry | None]:
        """Returns what is kept under each key that may be trusted, and is of an image that may be sent."""
        contents = await self.store.get(keys)
        counts = {"hit": 0, "miss": 0, "error": 0}
        found: list[Entry | None] = []
        for key, content in zip(keys, contents or [None] * len(keys), strict=True):
            entry = content and decode(key, content, loaded.columns, len(loaded.predictor.labels))
            # Another service that keeps its answers there may allow more.
            found.append(entry if entry and entry.size[0] * entry.size[1] <= max_pixels else None)
            counts["hit" if found[-1] else "miss" if contents and (content is None or entry) else "error"] += 1
        for result, count in counts.items():
            if count:
                self._meters.looked_up(name, result, count)
        return found

    def keep(self, entries: dict[bytes, Entry]) -> None:
        """Keeps what was computed."""
        encoded = {key: encode(key, entry) for key, entry in entries.items()}
        self.store.put({key: content for key, content in encoded.items() if content is not None})


async def rows_of(
    name: str, loaded: Loaded, uploads: Sequence[Upload], limits: Limits, cache: Cache | None, wait: Wait
) -> tuple[Rows, list[tuple[int, int]]]:
    """Returns each image's row, and its height and width as it came.

    Raises:
        Refused: if an image cannot be read or there is no room for it (503), or what `wait` raises.
    """
    keys = [key_of(loaded.identity, upload.content) for upload in uploads] if cache else []
    kept = await cache.look_up(name, loaded, keys, limits.max_pixels) if cache else [None] * len(uploads)
    missing = [number for number, entry in enumerate(kept) if entry is None]
    sizes = [entry.size if entry else (0, 0) for entry in kept]
    computed: dict[int, Float32[np.ndarray, " columns"]] = {}
    if missing:
        try:
            future = loaded.batcher.submit(
                [partial(loaded.prepare, uploads[number], limits, sizes, number) for number in missing]
            )
        except Overloaded as error:
            raise overloaded(error) from error
        computed = dict(zip(missing, await wait(future), strict=True))
    if cache and computed:
        cache.keep({keys[number]: Entry(row, sizes[number]) for number, row in computed.items()})
    return np.stack([computed[number] if entry is None else entry.row for number, entry in enumerate(kept)]), sizes
