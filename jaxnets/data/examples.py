"""One split of a source as a run uses it: fitted to the model's input, and readable in any order."""

import logging
import math
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, Int64, UInt8

from jaxnets.data.boxes import BoxOf, cut_box, least_for
from jaxnets.data.canvas import Canvas
from jaxnets.data.sources import ArraySplit, Canvases, CorruptImage, Split, Subset, labels_of
from jaxnets.data.sources.base import read_reduced
from jaxnets.errors import UserError

_log = logging.getLogger(__name__)


class Example(NamedTuple):
    image: UInt8[np.ndarray, "h w c"]
    label: int | UInt8[np.ndarray, " classes"]  # the class, or 1 for each that it has
    readable: bool  # False: the file is corrupt, and the image black
    aspect: float  # width / height of the original


class Fit(Protocol):
    """What brings images of any size to one: `Preprocess` for evaluation, `Canvas` for training."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def channels(self) -> int: ...
    def fit(
        self, image: UInt8[np.ndarray, "..."], original: tuple[int, int] | None = None
    ) -> UInt8[np.ndarray, "height width channels"]:
        """Fits an image, or what it was squeezed to from the `original` height and width."""
        ...

    def keeps(self, shape: tuple[int, ...]) -> bool:
        """Tells whether `fit` leaves images of this shape as they are."""
        ...


class Examples:
    """Some of a split's images, brought to one size when they are read.

    Reading is thread-safe. An image that cannot be decoded stops the run, or with `skip_corrupt` is named once and
    comes out as not readable. Where they are `cut`, each reading is of another box, of the size of `fit`.
    """

    def __init__(
        self, split: Split, chosen: Int64[np.ndarray, " n"], fit: Fit, *, skip_corrupt: bool, cut: bool = False
    ) -> None:
        self.labels: Int32[np.ndarray, " n"] | UInt8[np.ndarray, "n classes"] = labels_of(split)[chosen]
        while isinstance(split, Subset):
            chosen, split = split.chosen[chosen], split.whole
        self._split = split
        self._chosen = chosen
        self.fit = fit
        self.aspects: Float32[np.ndarray, " n"] = np.ones(len(chosen), np.float32)  # of those that were read
        self.cut = cut
        self._skip_corrupt = skip_corrupt
        self._images: UInt8[np.ndarray, "n h w c"] | None = None
        self._loaded: Bool[np.ndarray, " n"] | None = None  # which of them, where not all are
        self._corrupt: set[int] = set()
        self._lock = threading.Lock()
        if not cut and isinstance(split, ArraySplit) and fit.keeps(split.images.shape[1:]):
            everything = len(chosen) == len(split) and (chosen == np.arange(len(split))).all()
            self._images = split.images if everything else split.images[chosen]
            self.aspects[:] = fit.width / fit.height
        self._canvases = split if isinstance(split, Canvases) and self._takes(split) else None
        if self._canvases is not None:
            height, width = self._canvases.sizes[chosen].T
            self.aspects[:] = width / height

    def _takes(self, split: Canvases) -> bool:
        """Whether what the split stores is what the fit makes of it."""
        unchanged = isinstance(self.fit, Canvas) or bool((split.sizes[self._chosen] == split.shape[:2]).all())
        return unchanged and not self.cut and self.fit.keeps(split.shape)

    def __len__(self) -> int:
        return len(self._chosen)

    @property
    def nbytes(self) -> int:
        """Bytes of all images once they are fitted."""
        return len(self) * math.prod(self.shape)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of each image once it is fitted."""
        return self.fit.height, self.fit.width, self.fit.channels

    @property
    def several_labels(self) -> bool:
        """Whether an image may have several classes, or none: `labels` are then `[n, classes]`."""
        return self.labels.ndim == 2

    def allow_several_labels(self, classes: int) -> None:
        """Makes of each image's class the one label that it has of so many, where they are not labels already."""
        if not self.several_labels:
            self.labels = np.eye(classes, dtype=np.uint8)[self.labels]

    @property
    def in_memory(self) -> bool:
        """Whether all images are there, or those that `load` was asked for."""
        return self._images is not None

    @property
    def whole(self) -> bool:
        """Whether all images are in memory."""
        return self._images is not None and self._loaded is None

    @property
    def corrupt(self) -> frozenset[int]:
        """Indices of the images that were found to be corrupt so far."""
        return frozenset(self._corrupt)

    @property
    def copied(self) -> bool:
        """Whether images only have to be copied, from memory or from where they are stored (`copy`)."""
        return self._canvases is not None or (self.whole and not self._corrupt)

    def copy(self, indices: Int[np.ndarray, " b"], out: UInt8[np.ndarray, "b h w c"]) -> None:
        """Copies images into the rows of `out`, where they are `copied`."""
        if self._images is not None and self._loaded is None:
            np.take(self._images, indices, axis=0, out=out, mode="clip")  # other modes take a copy first
        else:
            assert self._canvases is not None
            self._canvases.read_into(self._chosen[indices], out)

    def read(self, index: int) -> Example:
        """Returns one example.

        Raises:
            UserError: if its image is corrupt and corrupt images are not skipped.
        """
        if self._images is not None and (self._loaded is None or self._loaded[index]):
            image, readable = self._images[index], index not in self._corrupt
        else:
            image = np.empty(self.shape, np.uint8)
            readable = self.read_into(index, image)
        return Example(image, self.labels[index], readable, float(self.aspects[index]))

    def read_into(self, index: int, out: UInt8[np.ndarray, "h w c"], box_of: BoxOf | None = None) -> bool:
        """Reads one example's image into an array and notes its aspect; returns whether it is readable, else black.

        `box_of` is given where boxes are `cut` out of them.

        Raises:
            UserError: as `read`.
        """
        if self._images is not None and (self._loaded is None or self._loaded[index]):
            out[...] = self._images[index]
            return index not in self._corrupt
        try:
            chosen = int(self._chosen[index])
            if box_of is not None:
                read = read_reduced(self._split, chosen, least_for(box_of, self.fit.height, self.fit.width))
                cut_box(read, box_of(read.aspect), out)
            elif isinstance(self.fit, Canvas):
                read = read_reduced(self._split, chosen, (self.fit.height, self.fit.width))
                self.fit.squeeze_reduced(read, out)
            else:
                read = read_reduced(self._split, chosen, None)
                out[...] = self.fit.fit(read.image, read.original)
            self.aspects[index] = read.aspect
            return True
        except CorruptImage as error:
            self._skip(index, error)
            out[...] = 0
            return False

    def _skip(self, index: int, error: CorruptImage) -> None:
        """Notes an image that cannot be decoded; raises UserError where such are not skipped."""
        if not self._skip_corrupt:
            raise UserError(
                f"{error}: mend or remove it, or go on without such images with --config.data.skip_corrupt=true"
            ) from error
        with self._lock:
            if index not in self._corrupt:
                self._corrupt.add(index)
                _log.warning("skipped: %s", error)

    def read_views(self, index: int, fits: Sequence[Fit]) -> list[UInt8[np.ndarray, "h w c"]] | None:
        """Returns one example's image as each of `fits` makes it, decoded once; None where it is not readable.

        Raises:
            UserError: as `read`.
        """
        if self._images is not None and (self._loaded is None or self._loaded[index]):
            image, original = self._images[index], None
            if index in self._corrupt:
                return None
        else:
            try:
                read = read_reduced(self._split, int(self._chosen[index]), None)
            except CorruptImage as error:
                self._skip(index, error)
                return None
            image, original = read.image, read.original
        return [fit.fit(image, original) for fit in fits]

    @property
    def stored(self) -> tuple[Split, Int64[np.ndarray, " n"]]:
        """The split of the source that holds the images, and the number of each there."""
        return self._split, self._chosen

    def read_substituting(self, index: int, out: UInt8[np.ndarray, "h w c"], box_of: BoxOf | None = None) -> int:
        """Reads one example, or in place of a corrupt one the next that can be read, so that batches stay full.

        Returns:
            Which it was.
        """
        for candidate in range(index, index + len(self)):
            if self.read_into(candidate % len(self), out, box_of):
                return candidate % len(self)
        raise UserError("none of the training images can be read")

    def load(self, threads: int, chosen: Int64[np.ndarray, " m"] | None = None) -> UInt8[np.ndarray, "n h w c"]:
        """Reads every image into memory, once, and returns them all; corrupt ones are black.

        With `chosen` only those are read, and what is returned holds nothing in place of the others.
        """
        if self._images is None and self._canvases is not None and chosen is None:
            self._images = self._canvases.view(self._chosen)  # read from the disk as it is needed, if at all
        if self._images is None:
            if chosen is not None:
                self._loaded = np.zeros(len(self), bool)
                self._loaded[chosen] = True
            images = np.empty((len(self), *self.shape), np.uint8)

            def read(index: int) -> None:
                if self._canvases is not None:
                    self._canvases.read_into(self._chosen[index : index + 1], images[index : index + 1])
                else:
                    self.read_into(index, images[index])

            _for_each(read, range(len(self)) if chosen is None else chosen.tolist(), threads)
            self._images = images
        return self._images


def substitutes(examples: int, corrupt: Collection[int]) -> Int32[np.ndarray, " n"]:
    """Returns for each index the one that `Examples.read_substituting` reads."""
    indices = np.arange(examples, dtype=np.int32)
    if len(corrupt) == examples:
        raise UserError("none of the training images can be read")
    for index in sorted(corrupt, reverse=True):
        following = (index + 1) % examples
        while following in corrupt:
            following = (following + 1) % examples
        indices[index] = following
    return indices


def _for_each(function: Callable[[int], None], indices: Iterable[int], threads: int) -> None:
    """Calls the function with each index, in several threads; the first error ends it."""
    waiting = iter(indices)
    lock, ended = threading.Lock(), threading.Event()

    def work() -> None:
        try:
            while not ended.is_set():
                with lock:
                    index = next(waiting, None)
                if index is None:
                    return
                function(index)
        except BaseException:
            ended.set()
            raise

    threads = max(threads, 1)
    with ThreadPoolExecutor(threads) as pool:
        workers = [pool.submit(work) for _ in range(threads)]  # not a future for each: of millions they take gigabytes
        try:
            for worker in workers:
                worker.result()
        finally:
            ended.set()
