"""What every source of images offers to the pipeline."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Int32, Int64, UInt8, UInt64

from jaxnets.data.sources.names import hashes


class Split(Protocol):
    """Random access to labelled images; reading one needs no other, so that any order can be read by any thread."""

    @property
    def labels(self) -> Int32[np.ndarray, " n"]:
        """Class of each image, 0 … classes − 1."""
        ...

    @property
    def identities(self) -> UInt64[np.ndarray, " n"]:
        """A hash of each example's own name or content, wherever the data lies and whatever lies beside it."""
        ...

    @property
    def groups(self) -> UInt64[np.ndarray, " n"] | None:
        """A hash of the group of each example, which no split that is drawn may divide; None where there are none."""
        ...

    @property
    def targets(self) -> UInt8[np.ndarray, "n classes"] | None:
        """1 for each label that an image has, where it may have several; `labels` is then the first, 0 without any.

        None: each has one, which `labels` says.
        """
        ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> UInt8[np.ndarray, "h w c"]:
        """Returns one image as it is stored, decoded; c is 1 (grey), 3 (RGB) or 4 (RGB and alpha).

        Raises:
            CorruptImage: if it cannot be decoded, with its name.
        """
        ...

    def name(self, index: int) -> str:
        """Returns what a report calls the example: "cat/7.jpg", "test[7]"."""
        ...

    def content_crc32(self, chosen: Int64[np.ndarray, " m"]) -> int:
        """Returns a checksum of what is stored for these examples, or for some of them where all are too much.

        0 where `identities` are hashes of the content already.
        """
        ...


@runtime_checkable
class Encoded(Protocol):
    """A split of image files, or of what else `decode` makes images of."""

    def encoded(self, index: int) -> bytes:
        """Returns a file's bytes; raises CorruptImage where they cannot be read."""
        ...


@runtime_checkable
class Canvases(Protocol):
    """A split whose images are stored squeezed to one size, and are copied from there without being decoded."""

    shape: tuple[int, int, int]  # of each

    @property
    def sizes(self) -> Int32[np.ndarray, "n 2"]:
        """Height and width of the originals."""
        ...

    def read_into(self, indices: Int[np.ndarray, " b"], out: UInt8[np.ndarray, "b h w c"]) -> None:
        """Copies these into the rows of `out`, from any thread."""
        ...

    def view(self, indices: Int[np.ndarray, " b"]) -> UInt8[np.ndarray, "b h w c"] | None:
        """Returns these without copying them where they lie side by side, to be read alone; None elsewhere."""
        ...


class Reduced(NamedTuple):
    """An image, perhaps decoded at a part of its size, or squeezed to another shape."""

    image: UInt8[np.ndarray, "h w c"]
    original: tuple[int, int]  # height and width of the whole
    by: int = 1  # pixels of a side of the whole that one pixel stands for; the last may stand for fewer

    @property
    def aspect(self) -> float:
        """Width / height of the whole."""
        return self.original[1] / self.original[0]


# Height and width that are needed; or what they are of an original of the height and width given, for a box that is cut
# out of it for training: it may be decoded in the quickest way, as augmentation changes it by more.
Least = tuple[int, int] | Callable[[tuple[int, int]], tuple[int, int]]


def read_reduced(split: Split, index: int, least: Least | None) -> Reduced:
    """Returns one image, as `split.image` or smaller, but of no less than `least` where it was more.

    A split that can save work so has a method `reduced(index, least)` of its own. Whoever squeezes images to a canvas
    reads them by this, so that all of them see the same pixels.

    Raises:
        CorruptImage: as `split.image`.
    """
    own = getattr(split, "reduced", None)
    if own is not None:
        reduced: Reduced = own(index, least)
        return reduced
    image = split.image(index)
    return Reduced(image, (image.shape[0], image.shape[1]))


class CorruptImage(Exception):
    """An image that cannot be decoded. The message names it and says why."""


@dataclass(frozen=True)
class Stored:
    """How images that were prepared are stored."""

    height: int  # pixels of each; where they were not squeezed, both are the most that a shorter side has
    width: int
    squeezed: bool  # each whole, to a canvas of this size
    exact: bool  # none is smaller than its original


@dataclass(frozen=True, kw_only=True)
class Grouped:
    """The column of a table that `Split.groups` are hashes of."""

    column: str | None  # None: the table has no such column
    values: Sequence[str]  # that there are, stripped; a row without one has a group of its own, of no value
    columns: Sequence[str]  # all that the table has, as far as they are known


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set: named splits of labelled images; for training "train" and "test" at least."""

    description: str  # as in config.data.source
    class_names: tuple[str, ...]
    splits: Mapping[str, Split]
    image_size: tuple[int, int] | None  # pixels, height and width that all images have; None where they differ
    channels: int  # 1 (grey) or 3 (RGB)
    unlabelled: Mapping[str, Sequence[str]] = field(default_factory=dict)  # folder → paths of images without a class
    stored: Stored | None = None  # None: images are as they are
    notes: tuple[str, ...] = ()  # how it was understood and what was passed over, a sentence each
    grouped: Grouped | None = None  # None: it is no table


@dataclass(frozen=True)
class ArraySplit:
    """Images of one size that are in memory already."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, " n"]
    title: str = "image"  # what `name` calls them, before their number
    groups: UInt64[np.ndarray, " n"] | None = None
    targets: UInt8[np.ndarray, "n classes"] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def identities(self) -> UInt64[np.ndarray, " n"]:
        return hashes(image.tobytes() for image in self.images)

    def image(self, index: int) -> UInt8[np.ndarray, "h w c"]:
        return self.images[index]

    def name(self, index: int) -> str:
        return f"{self.title}[{index}]"

    def content_crc32(self, chosen: Int64[np.ndarray, " m"]) -> int:
        return 0


@dataclass(frozen=True)
class Subset:
    """Some of a split's examples, or all of them with other labels."""

    whole: Split
    chosen: Int64[np.ndarray, " n"]
    class_of: Int32[np.ndarray, " classes"] | None = None  # what becomes of each of the whole split's labels
    classes: int | None = None  # that there are then

    @cached_property
    def labels(self) -> Int32[np.ndarray, " n"]:
        labels = self.whole.labels[self.chosen]
        return labels if self.class_of is None else self.class_of[labels]

    @cached_property
    def identities(self) -> UInt64[np.ndarray, " n"]:
        return self.whole.identities[self.chosen]

    @cached_property
    def groups(self) -> UInt64[np.ndarray, " n"] | None:
        return None if self.whole.groups is None else self.whole.groups[self.chosen]

    @cached_property
    def targets(self) -> UInt8[np.ndarray, "n classes"] | None:
        if self.whole.targets is None:
            return None
        targets = self.whole.targets[self.chosen]
        if self.class_of is None:
            return targets
        wide = np.zeros((len(targets), self.classes or targets.shape[1]), np.uint8)
        wide[:, self.class_of] = targets
        return wide

    def __len__(self) -> int:
        return len(self.chosen)

    def image(self, index: int) -> UInt8[np.ndarray, "h w c"]:
        return self.whole.image(int(self.chosen[index]))

    def reduced(self, index: int, least: Least | None) -> Reduced:
        return read_reduced(self.whole, int(self.chosen[index]), least)

    def name(self, index: int) -> str:
        return self.whole.name(int(self.chosen[index]))

    def content_crc32(self, chosen: Int64[np.ndarray, " m"]) -> int:
        return self.whole.content_crc32(self.chosen[chosen])


def labels_of(split: Split) -> Int32[np.ndarray, " n"] | UInt8[np.ndarray, "n classes"]:
    """Returns all that is known of the classes of a split's images: `targets` where there are some, else `labels`."""
    return split.labels if split.targets is None else split.targets


def classes_by_rarity(labels: Int32[np.ndarray, " n"] | UInt8[np.ndarray, "n classes"]) -> Int32[np.ndarray, " n"]:
    """Returns the one class that each image is divided and drawn by, so that no class is forgotten.

    Of several labels (`labels_of`) it is the rarest, which needs it most; images of none are a class of their own.
    """
    if labels.ndim == 1:
        return labels
    counts = labels.sum(0, dtype=np.int64)
    rarest = np.where(labels.astype(bool), counts, len(labels) + 1).argmin(1)
    return np.where(labels.any(1), rarest, labels.shape[1]).astype(np.int32)
