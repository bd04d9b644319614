"""Some images of a split, each under several corruptions, as one long split."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Int64, UInt8

from jaxnets.data.boxes import BoxOf
from jaxnets.data.examples import Examples
from jaxnets.data.sources import Split
from jaxnets.evaluate.corruptions import corrupt

Kind = tuple[str, int]  # the name of a corruption, and its severity
_KEPT = 64  # images that several threads are at, so that each is read once for all its corruptions


class CorruptedExamples(Examples):
    """Example i is image i // k of those chosen, with corruption i % k of k.

    They are corrupted when they are read, at the size that the model sees. What is drawn for one depends on the seed,
    the corruption and the image's number in its split, and on nothing else.
    """

    def __init__(self, whole: Examples, chosen: Int64[np.ndarray, " m"], kinds: Sequence[Kind], seed: int) -> None:
        self._whole, self._numbers, self._kinds, self._seed = whole, chosen, tuple(kinds), seed
        self.fit, self.cut = whole.fit, False
        self.labels = np.repeat(whole.labels[chosen], len(kinds), 0)
        self.aspects = np.ones(len(self), np.float32)
        self._images, self._loaded, self._corrupt = None, None, set[int]()  # it keeps nothing
        self._read_whole = lru_cache(maxsize=_KEPT)(self._fitted)

    def _fitted(self, number: int) -> tuple[UInt8[np.ndarray, "h w c"], bool]:
        image = np.empty(self._whole.shape, np.uint8)
        return image, self._whole.read_into(number, image)

    def __len__(self) -> int:
        return len(self._numbers) * len(self._kinds)

    @property
    def in_memory(self) -> bool:
        """False: even where the images are, to corrupt them is work for several threads."""
        return False

    def read_into(self, index: int, out: UInt8[np.ndarray, "h w c"], box_of: BoxOf | None = None) -> bool:
        """Reads one image and corrupts it; returns whether it is readable, else black."""
        number, kind = divmod(index, len(self._kinds))
        chosen = int(self._numbers[number])
        image, readable = self._read_whole(chosen)
        name, severity = self._kinds[kind]
        out[...] = corrupt(image, name, severity, seed=self._seed, example=chosen) if readable else 0
        return readable

    @property
    def stored(self) -> tuple[Split, Int64[np.ndarray, " n"]]:
        split, chosen = self._whole.stored
        return split, np.repeat(chosen[self._numbers], len(self._kinds))
