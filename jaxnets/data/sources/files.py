"""Splits of image files, and what their headers tell."""

import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64, UInt8, UInt64

from jaxnets.cores import cores
from jaxnets.data.decode import decode_reduced, levels, read_header
from jaxnets.data.sources.base import CorruptImage, Least, Reduced
from jaxnets.data.sources.names import hashes, printable

_MOST_HEADERS = 20_000  # images whose headers are all read; 0.1 ms each
_SAMPLE = 2_000  # headers read of a larger set, evenly spread
_CHUNK = 256  # headers between two looks at whether the answer is known already
_SIZED = 50_000  # files, evenly spread, whose sizes tell whether they were changed,
_READ = 64  # and that are read for it
_LEVELS = 16  # images of 16 bits that are decoded to see which range they use


@dataclass(frozen=True)
class FileSplit:
    """Image files and their classes; decoded when asked for."""

    root: str  # the folder that their names are told from
    paths: Sequence[str]  # or Paths: a million of pathlib's take gigabytes
    labels: Int32[np.ndarray, " n"]
    white_level: int
    groups: UInt64[np.ndarray, " n"] | None = None
    targets: UInt8[np.ndarray, "n classes"] | None = None
    own: Sequence[str] | None = None  # names that tell them apart, where those from `root` say where they lie too

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def identities(self) -> UInt64[np.ndarray, " n"]:
        if self.own is not None:
            return hashes(printable(name).encode() for name in self.own)
        return hashes(self.name(index).encode() for index in range(len(self)))

    def encoded(self, index: int) -> bytes:
        """Returns a file's bytes; raises CorruptImage with its path."""
        path = self.paths[index]
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise CorruptImage(f"{printable(path)} cannot be read: {error.strerror}") from error

    def image(self, index: int) -> UInt8[np.ndarray, "h w c"]:
        """Decodes one file (`jaxnets.data.decode`); raises CorruptImage with its path."""
        return self.reduced(index, None).image

    def reduced(self, index: int, least: Least | None) -> Reduced:
        path = self.paths[index]
        return decode_reduced(Path(path), printable(path), self.white_level, least)

    def name(self, index: int) -> str:
        path = self.paths[index]
        within = path[len(self.root) :] if path.startswith(self.root) else path
        return printable(within.replace(os.sep, "/").lstrip("/"))

    def content_crc32(self, chosen: Int64[np.ndarray, " m"]) -> int:
        """Returns a checksum of the files' sizes and of what some of them hold; of many, of a spread sample."""
        checksum = 0
        for index in _spread(len(chosen), _SIZED):
            try:
                size = os.stat(self.paths[chosen[index]]).st_size
            except OSError:  # it is named when it is read
                size = -1
            checksum = zlib.crc32(size.to_bytes(8, "little", signed=True), checksum)
        for index in _spread(len(chosen), _READ):
            try:
                checksum = zlib.crc32(Path(self.paths[chosen[index]]).read_bytes(), checksum)
            except OSError:
                continue
        return checksum


@dataclass(frozen=True)
class Survey:
    """What all images have in common, as far as was looked."""

    image_size: tuple[int, int] | None  # pixels, height and width; None where they differ
    channels: int  # 1 if all are grey, else 3
    notes: tuple[str, ...]


def survey(paths: Sequence[str], white_level: int) -> Survey:
    """Looks at the headers of all images, or of a spread sample of 2,000 where there are more than 20,000.

    Where all of a sample have one size, images of another size are so few that to fit them to it is what a person would
    have asked for.
    """
    complete = len(paths) <= _MOST_HEADERS
    order = _spread(len(paths), len(paths) if complete else _SAMPLE)
    # Images that differ lie far apart as a rule, in other classes or splits: strides find them in the first chunk.
    stride = -(-len(order) // _CHUNK)
    sizes: set[tuple[int, int]] = set()
    colour = False
    deep: list[str] = []
    with ThreadPoolExecutor(min(32, 4 * cores())) as pool:
        for start in range(stride):
            chunk = order[start::stride].tolist()
            for index, header in zip(chunk, pool.map(lambda i: read_header(Path(paths[i])), chunk), strict=True):
                if header is not None:
                    sizes.add((header.height, header.width))
                    colour = colour or header.channels != 1
                    if header.bits > 8:
                        deep.append(paths[index])
            if colour and len(sizes) > 1:
                break
    notes = []
    if not complete and len(sizes) == 1:
        notes.append(f"the size and channels of {len(paths):,} images are judged by {len(order):,} of them")
    if deep:
        notes += _range_notes([deep[i] for i in _spread(len(deep), _LEVELS)], white_level)
    return Survey(next(iter(sizes)) if len(sizes) == 1 else None, 1 if sizes and not colour else 3, tuple(notes))


def _range_notes(paths: Sequence[str], white_level: int) -> list[str]:
    """Says so where images of 16 bits use little of the range that becomes 0 … 255, or more than it."""
    brightest, coloured = 0, False
    for path in paths:
        try:
            found = levels(Path(path), printable(path))
        except CorruptImage:
            continue
        brightest, coloured = max(brightest, found.brightest), coloured or found.coloured
    looked = f"{len(paths)} images of 16 bits that were looked at"
    if brightest > white_level:
        return [
            f"the {looked} have values up to {brightest:,}; those above config.data.white_level {white_level:,} "
            f"become white"
        ]
    if brightest * 8 < white_level:
        if coloured:
            remedy = "convert them to 8 bits (of 16 bits in colour the lower eight are not read)"
        else:
            remedy = f"set config.data.white_level to what white is (4095 for 12 bits), found {white_level:,}"
        return [f"the {looked} have values up to {brightest:,} and so come out nearly black: {remedy}"]
    return []


def _spread(length: int, most: int) -> Int64[np.ndarray, " m"]:
    """Returns up to `most` positions, evenly spread."""
    return np.linspace(0, length - 1, min(length, most)).astype(np.int64)
