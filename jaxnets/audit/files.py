"""What an image's file says beside its pixels, where a source's images are files."""

import hashlib
import io
import os
import sys
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from jaxnets.data.sources import CorruptImage, Split, Subset
from jaxnets.data.sources.base import Encoded
from jaxnets.data.sources.prepared_splits import PreparedSplit

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jfif", ".jpe"),
    "MPO": (".jpg", ".jpeg", ".jfif", ".jpe", ".mpo"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
}
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # as Pillow opens them; a JPEG of several images comes out as MPO
_KNOWN = {suffix for suffixes in _SUFFIXES.values() for suffix in suffixes}
_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")


class FileFacts(NamedTuple):
    digest: int = 0  # 64 bits of a hash of the bytes; 0 where there is no file
    misnamed: str = ""  # the format, where the suffix promises another
    orientation: int = 1  # of EXIF; 1 is upright
    odd: str = ""  # what is converted or left out: CMYK, animation
    brightest: int = -1  # value of a grey image of 16 bits, as it is stored; −1 for others


def path_of(split: Split, index: int) -> str | None:
    """Returns the file of an example; None where the source keeps its images otherwise."""
    inner, index = _innermost(split, index)
    paths = getattr(inner, "paths", None)
    return None if paths is None else os.fspath(paths[index])


def facts_of(split: Split, index: int) -> FileFacts:
    """Returns what the file of an example says, be it a file of its own or one within a tar or a table.

    Of one that cannot be read as an image the digest is told alone; of a source without files nothing.
    """
    split, index = _innermost(split, index)
    if not isinstance(split, Encoded):
        return FileFacts()
    try:
        content = split.encoded(index)
    except CorruptImage:  # it is named when its pixels are read
        return FileFacts()
    return _read(content, path_of(split, index) or split.name(index))


def size_before(split: Split, index: int) -> tuple[int, int] | None:
    """Returns height and width that an image had before it was prepared; None for one that is as it was."""
    inner, index = _innermost(split, index)
    if not isinstance(inner, PreparedSplit):
        return None
    height, width = inner.sizes[index].tolist()
    return height, width


def _innermost(split: Split, index: int) -> tuple[Split, int]:
    while isinstance(split, Subset):
        index, split = int(split.chosen[index]), split.whole
    return split, index


def _read(content: bytes, name: str) -> FileFacts:
    digest = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            kind, mode = str(image.format), image.mode
            # Pillow would decode a whole PNG to look for EXIF behind its pixels.
            exif = "exif" in image.info or kind in ("JPEG", "MPO")
            orientation = _orientation(image) if exif else 1
            animated = bool(getattr(image, "is_animated", False)) and kind != "MPO"
            deep = mode in _SIXTEEN_BIT and image.width * image.height <= (Image.MAX_IMAGE_PIXELS or sys.maxsize)
            brightest = int(np.asarray(image).max()) if deep else -1
    except Exception:  # the bytes of strangers: what reads the pixels says what is wrong
        return FileFacts(digest)
    suffix = os.path.splitext(name)[1].lower()
    return FileFacts(
        digest=digest,
        misnamed="" if suffix in _SUFFIXES[kind] or suffix not in _KNOWN else kind,
        orientation=orientation,
        odd="CMYK" if mode == "CMYK" else "animated" if animated else "",
        brightest=brightest,
    )


def _orientation(image: Image.Image) -> int:
    try:
        value = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged block, of an image that is good
        return 1
    return value if 1 <= value <= 8 else 1
