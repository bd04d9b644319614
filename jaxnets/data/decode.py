"""From the bytes of an image file to uint8 pixels, for every place where jaxnets opens one."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from jaxnets.data.sources.base import CorruptImage

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")  # of files that are taken for images, in lower case

# What is tried, whatever the suffix says: half the formats that Pillow knows have no place in a training set, and each
# is code that reads the bytes of strangers.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")

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

_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # how Pillow opens a grey PNG of 16 bits


def decode(file: Path | BinaryIO, name: str) -> UInt8[np.ndarray, "h w c"]:
    """Decodes one JPEG, PNG, WebP or BMP image and turns it upright as its EXIF orientation says.

    Args:
        file: where it is, or its bytes as a file opened for reading (`io.BytesIO`).
        name: what the messages call it.

    Returns:
        The pixels, c = 1 for grey, 3 for RGB, 4 for RGB with alpha. A palette becomes RGB, or RGBA where it has a
        transparent colour; CMYK becomes RGB; grey with alpha becomes RGBA; 16 bits are rounded to 8; the first frame
        stands for an animation.

    Raises:
        CorruptImage: if it is missing, is no such image, is cut off or damaged, or has more than
            `PIL.Image.MAX_IMAGE_PIXELS` pixels.
    """
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more on damaged bytes: one case here.
    try:
        with Image.open(file, formats=_FORMATS) as image:
            refuse_huge(image, name)
            image.load()
            return _to_array(_upright(image))
    except CorruptImage:
        raise
    except UnidentifiedImageError:
        raise CorruptImage(f"{name} is not an image that can be read (JPEG, PNG, WebP or BMP)") from None
    except FileNotFoundError:
        raise CorruptImage(f"{name} does not exist") from None
    except Exception as error:
        raise CorruptImage(f"{name} cannot be decoded: {error or type(error).__name__}") from error


def read_header(path: Path) -> tuple[int, int, int] | None:
    """Returns (height, width, channels) as `decode` will give them, from the header alone; None if it is unreadable."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            # For a PNG without EXIF in its header, getexif would decode all of it to look behind the pixels.
            has_exif = "exif" in image.info or image.format in ("JPEG", "MPO")
            width, height = image.size
            if has_exif and _orientation(image) in _SIDEWAYS:
                height, width = width, height
            return height, width, _channels(image)
    except Exception:
        return None


def refuse_huge(image: Image.Image, name: str) -> None:
    """Raises CorruptImage for an image of more than Pillow's MAX_IMAGE_PIXELS; None there means no limit."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise CorruptImage(
            f"{name} has {image.width} × {image.height} pixels, more than the {limit:,} that are allowed: shrink it, "
            f"or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        )


def _channels(image: Image.Image) -> int:
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return 4
    return 1 if image.mode in ("1", "L", *_SIXTEEN_BIT) else 3


def _to_array(image: Image.Image) -> UInt8[np.ndarray, "h w c"]:
    if image.mode in _SIXTEEN_BIT:
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        return ((wide + 128) // 257).astype(np.uint8)[..., None]  # 65535 = 257 · 255, so this is round(v · 255 / 65535)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[_channels(image)]
    converted = image if image.mode == mode and "transparency" not in image.info else image.convert(mode)
    # A copy: an array that shares Pillow's memory cannot be written to.
    return np.array(converted).reshape(image.height, image.width, -1)


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
    except Exception:
        return 1
