"""What every source of images offers to the pipeline."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Int32, UInt8


class Split(Protocol):
    """Random access to labelled images; reading one needs no other, so that any order can be read by any thread."""

    @property
    def labels(self) -> Int32[np.ndarray, " n"]:
        """Class of each image, 0 … classes − 1."""
        ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> UInt8[np.ndarray, "h w c"]:
        """Returns one image as it is stored, decoded; c is 1 (grey), 3 (RGB) or 4 (RGB and alpha).

        Raises:
            CorruptImage: if it cannot be decoded, with its name.
        """
        ...


class CorruptImage(Exception):
    """An image that cannot be decoded. The message names it and says why."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set: named splits ("train" and "test" at least) of labelled images."""

    description: str  # as in config.data.source
    class_names: tuple[str, ...]
    splits: Mapping[str, Split]
    image_size: tuple[int, int] | None  # pixels, height and width of every image; None where they differ
    channels: int  # 1 (grey) or 3 (RGB)


@dataclass(frozen=True)
class ArraySplit:
    """Images of one size that are in memory already."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> UInt8[np.ndarray, "h w c"]:
        return self.images[index]
