"""From the bytes of an image file to uint8 pixels, for every place where jaxnets opens one."""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from jaxnets.data import dicom, jpeg
from jaxnets.data.sources.base import CorruptImage, Least, Reduced
from jaxnets.errors import UserError

_READ_AT_ONCE = 2**18  # bytes
_PLAIN = (".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
SUFFIXES = (*_PLAIN, *dicom.SUFFIXES)  # of files taken for images, in lower case

# What is tried, whatever the suffix says: half the formats that Pillow knows have no place in a training set, and each
# is code that reads the bytes of strangers.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
READABLE = "JPEG, PNG, WebP, BMP, TIFF, GIF or DICOM"  # as messages say it

# EXIF orientation (tag 274) and what turns the stored image upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # height and width change places
_TOP_DOWN, _LEFT_RIGHT = (3, 4, 6, 7), (2, 3, 7, 8)  # turned round, before the sides change places

_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # how Pillow opens a grey PNG or TIFF of 16 bits
_DEEP_COLOUR = re.compile(r";16[BLN]\b")  # in the arguments of its decoders, where they read the upper eight bits
_SIZE, _TILE = (256, 257), (322, 323)  # tags of a TIFF: width and height as they are stored, and of its tiles
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # of a TIFF: a tag, and its value where small numbers are bright
_SAMPLE_FORMAT, _SIGNED = 339, 2  # likewise: what its numbers are, and its value where they have a sign


WHITE = 65535  # the value of white in an image of 16 bits that uses all of them


class Header(NamedTuple):
    """What an image file says of itself before its pixels; the shape is that of `decode`."""

    height: int
    width: int
    channels: int
    bits: int  # per channel and pixel, 8 or 16, as they are stored


_TOO_LARGE = "shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"


class Levels(NamedTuple):
    brightest: int  # value, of 0 … 65535
    coloured: bool  # then Pillow reads the upper eight bits alone


def decode(file: Path | BinaryIO, name: str, white_level: int = WHITE) -> UInt8[np.ndarray, "h w c"]:
    """Decodes one JPEG, PNG, WebP, BMP, TIFF, GIF or DICOM image and turns it upright as its EXIF orientation says.

    Args:
        file: where it is, or its bytes as a file opened for reading (`io.BytesIO`).
        name: what the messages call it.
        white_level: of a grey image of 16 bits, the value that becomes 255; 4095 where only 12 bits are used. What a
            DICOM file says of its own range goes before it (`jaxnets.data.dicom`).

    Returns:
        The pixels, c = 1 for grey, 3 for RGB, 4 for RGB with alpha. A palette becomes RGB, or RGBA where it has a
        transparent colour; CMYK becomes RGB; grey with alpha becomes RGBA; 16 bits are scaled and rounded to 8, in
        colour cut to the upper eight; the first frame stands for an animation, the first page for a document.

    Raises:
        CorruptImage: if it is missing, is no such image, is cut off or damaged, or has more than
            `PIL.Image.MAX_IMAGE_PIXELS` pixels.
    """
    return decode_reduced(file, name, white_level).image


def decode_reduced(file: Path | BinaryIO, name: str, white_level: int = WHITE, least: Least | None = None) -> Reduced:
    """Decodes as `decode`; but a JPEG of at least twice the height and width that are asked for comes smaller.

    It then has 1/2, 1/4 or 1/8 of its sides, whichever is the least that is not below `least`, rounded up: much of its
    decoding is saved.

    Raises:
        CorruptImage: as `decode`.
        UserError: where there is no memory for it.
    """
    try:
        data = _jpeg_bytes(file, name)
        if data is not None and (reduced := _plain_jpeg(data, least)) is not None:
            return reduced
        pixels = _decode_whole(file if data is None else io.BytesIO(data), name, white_level)
    except MemoryError as error:  # the machine's fault, not the image's, which must not be passed over for it
        raise UserError(
            f"there is no memory left to decode {name}: free some, or decode fewer at once (config.data.threads)"
        ) from error
    return Reduced(pixels, (pixels.shape[0], pixels.shape[1]))


def _decode_whole(file: Path | BinaryIO, name: str, white_level: int) -> UInt8[np.ndarray, "h w c"]:
    # Before Pillow, which takes one that begins as a TIFF does for a TIFF.
    if dicom.is_called_one(file) and dicom.is_dicom(file):
        return dicom.decode(file, name, white_level)
    try:
        with _loaded(file, name) as image:
            return _to_array(_upright(image), white_level)
    except _Unidentified:
        if dicom.is_dicom(file):
            return dicom.decode(file, name, white_level)
        raise


def _jpeg_bytes(file: Path | BinaryIO, name: str) -> bytes | None:
    """Returns what a JPEG holds, None for another file; it is left at its beginning."""
    if not isinstance(file, Path):
        file.seek(0)
        is_jpeg = file.read(len(jpeg.MAGIC)) == jpeg.MAGIC
        file.seek(0)
        return file.read() if is_jpeg else None
    try:
        opened = os.open(file, os.O_RDONLY | os.O_CLOEXEC)  # a third quicker than a file object
        try:
            content = os.read(opened, len(jpeg.MAGIC))
            while content[: len(jpeg.MAGIC)] == jpeg.MAGIC and (more := os.read(opened, _READ_AT_ONCE)):
                content += more
            return content if content[: len(jpeg.MAGIC)] == jpeg.MAGIC else None
        finally:
            os.close(opened)
    except OSError:
        return None  # Pillow opens the file next, meets the same, and says so


def _plain_jpeg(data: bytes, least: Least | None) -> Reduced | None:
    """Decodes a JPEG of the usual kinds; None for another, and for one that has anything amiss."""
    frame = jpeg.read_frame(data)
    if frame is None:
        return None
    turn = 1
    if frame.has_exif:  # Pillow reads it, here as everywhere
        header = jpeg.header_of(data)
        if header is None:
            return None  # Pillow decodes it, and says what is amiss
        turn = _orientation(header)
    sideways = turn in _SIDEWAYS
    original = (frame.width, frame.height) if sideways else (frame.height, frame.width)
    wanted = least(original) if callable(least) else least
    by = 1 if wanted is None else jpeg.reduction(frame, wanted[::-1] if sideways else wanted)
    pixels = jpeg.decode_jpeg(data, frame, by, plain_chroma=callable(least))
    if pixels is None:
        return None
    if turn in _UPRIGHT:
        pixels = pixels[:: -1 if turn in _TOP_DOWN else 1, :: -1 if turn in _LEFT_RIGHT else 1]
        pixels = np.ascontiguousarray(pixels.swapaxes(0, 1) if sideways else pixels)
    return Reduced(pixels, original, by)


def decode_pillow(image: Image.Image, white_level: int = WHITE) -> UInt8[np.ndarray, "h w c"]:
    """Returns the pixels of an image that Pillow has opened, as `decode` does: upright, grey, RGB or RGBA.

    Raises:
        CorruptImage: as `decode`.
    """
    name = str(getattr(image, "filename", "")) or "the image"
    refuse_huge(image, name)
    try:
        _load(image)
        return _to_array(_upright(image), white_level)
    except Exception as error:
        raise CorruptImage(f"{name} cannot be decoded: {error or type(error).__name__}") from error


def levels(path: Path, name: str) -> Levels:
    """Returns the brightest value of an image of 16 bits, as it is stored; raises CorruptImage as `decode` does."""
    with _loaded(path, name) as image:
        if image.mode in _SIXTEEN_BIT:
            return Levels(int(_stored_values(image).max()), coloured=False)
        colours = np.asarray(image.convert("RGB"))
        return Levels(int(colours.max()) * 257, coloured=True)


class _Unidentified(CorruptImage):
    """A file that is nothing that Pillow is asked to read."""


@contextmanager
def _loaded(file: Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more on damaged bytes: one case here.
    try:
        with Image.open(file, formats=FORMATS) as image:
            refuse_huge(image, name)
            _refuse_huge_tiles(image, name)
            _load(image)
            yield image
    except (CorruptImage, MemoryError):
        raise
    except UnidentifiedImageError:
        raise _Unidentified(f"{name} is not an image that can be read ({READABLE})") from None
    except FileNotFoundError:
        raise CorruptImage(f"{name} does not exist") from None
    except Image.DecompressionBombError as error:
        raise CorruptImage(f"{name} is too large ({error}): {_TOO_LARGE}") from None
    except Exception as error:
        raise CorruptImage(f"{name} cannot be decoded: {error or type(error).__name__}") from error


def read_header(path: Path | BinaryIO) -> Header | None:
    """Returns what the header says, the shape as `decode` will give it; None if it is unreadable."""
    if dicom.is_called_one(path) and dicom.is_dicom(path):
        return _dicom_header(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            # For a PNG without EXIF in its header, getexif would decode all of it to look behind the pixels.
            has_exif = "exif" in image.info or image.format in ("JPEG", "MPO", "TIFF")
            # A TIFF's size may be that of the upright image before it is turned.
            stored = (image.tag_v2[tag] for tag in _SIZE) if isinstance(image, TiffImageFile) else image.size
            width, height = stored
            if has_exif and _orientation(image) in _SIDEWAYS:
                height, width = width, height
            # Pillow reads colours of 16 bits as 8, and only its decoder's arguments show it.
            deep = image.mode in _SIXTEEN_BIT or (
                image.format in ("PNG", "TIFF") and bool(_DEEP_COLOUR.search(str(image.tile[0][3])))
            )
            return Header(height, width, _channels(image), 16 if deep else 8)
    except UnidentifiedImageError:
        return _dicom_header(path)
    except (
        Exception
    ):  # whatever Pillow's parsers raise on damaged bytes; the image itself is refused when it is decoded
        return None


def _dicom_header(file: Path | BinaryIO) -> Header | None:
    shape = dicom.read_shape(file)
    return Header(*shape, bits=8) if shape else None  # whatever it stores, it says its range itself


def refuse_huge(image: Image.Image, name: str) -> None:
    """Raises CorruptImage for an image of more than Pillow's MAX_IMAGE_PIXELS; None there means no limit."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise CorruptImage(
            f"{name} has {image.width} × {image.height} pixels, more than the {limit:,} that are allowed: {_TOO_LARGE}"
        )


def _refuse_huge_tiles(image: Image.Image, name: str) -> None:
    """Raises CorruptImage for a TIFF whose tiles are larger than an image may be: each is decoded whole."""
    if isinstance(image, TiffImageFile):
        width, height = (int(image.tag_v2.get(tag, 0)) for tag in _TILE)
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and width * height > limit:
            raise CorruptImage(f"{name} has tiles of {width} × {height} pixels, more than the {limit:,} allowed")


def _load(image: Image.Image) -> None:
    """Decodes the pixels; those of a TIFF without mapping its file, which Pillow does by the size of the turned image.

    What lies on its side is then scrambled (seen with 13.0 on files without compression).
    """
    if not isinstance(image, TiffImageFile):
        image.load()
        return
    filename = image.filename
    image.filename = ""
    try:
        image.load()
    finally:
        image.filename = filename


def _channels(image: Image.Image) -> int:
    if image.mode in _SIXTEEN_BIT:
        return 1
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return 4
    return 1 if image.mode in ("1", "L") else 3


def _to_array(image: Image.Image, white_level: int) -> UInt8[np.ndarray, "h w c"]:
    if image.mode == "F":
        raise ValueError(
            "its pixels are floating-point numbers, and what is black and white among them it does not say: convert it "
            "to 8 or 16 bits"
        )
    if image.mode == "P" and image.palette is None:
        raise ValueError("it has no palette, and what colours its numbers are it does not say")
    if image.mode in _SIXTEEN_BIT or _is_signed(image):
        values = _stored_values(image)
        white = white_level if values.itemsize > 1 else 255
        wide = values.astype(np.int64).clip(0, white)
        if _is_inverted(image):
            wide = white - wide
        return ((wide * 255 + white // 2) // white).astype(np.uint8)[..., None]  # rounded
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[_channels(image)]
    converted = image if image.mode == mode and "transparency" not in image.info else image.convert(mode)
    # A copy: an array that shares Pillow's memory cannot be written to.
    return np.array(converted).reshape(image.height, image.width, -1)


def _stored_values(image: Image.Image) -> Integer[np.ndarray, "h w"]:
    """Returns the numbers that a grey image holds; raises ValueError where some of them are below 0."""
    values = np.asarray(image)
    # Pillow takes the sign from numbers of 8 bits, and gives one to those of 32.
    if values.dtype == np.uint8 and _is_signed(image):
        values = values.view(np.int8)
    elif values.dtype == np.int32 and isinstance(image, TiffImageFile) and not _is_signed(image):
        values = values.view(np.uint32)
    if values.min() < 0:
        raise ValueError(
            f"its pixels go down to {values.min():,}, and what is black among numbers below 0 it does not say: convert "
            f"it to 8 or 16 bits without a sign"
        )
    return values


def _is_signed(image: Image.Image) -> bool:
    return isinstance(image, TiffImageFile) and _SIGNED in image.tag_v2.get(_SAMPLE_FORMAT, ())


def _is_inverted(image: Image.Image) -> bool:
    """Whether small values are bright; Pillow turns that round for images of 8 bits alone."""
    return isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def _upright(image: Image.Image) -> Image.Image:
    turn = _UPRIGHT.get(_orientation(image))
    if turn is None:
        return image
    turned = image.transpose(turn)
    if "transparency" in image.info:  # transpose forgets it
        turned.info["transparency"] = image.info["transparency"]
    return turned


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation; 1, upright, where there is none or the block is damaged: the pixels are good."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except MemoryError:  # else it would be seen as upright
        raise
    except Exception:
        return 1
