"""DICOM files: the first frame as uint8 pixels, as a viewer first shows it.

What is stored becomes what is meant in the standard's own order (PS3.3 C.11): the modality transform (a table, or
rescale slope and intercept), then the first VOI table or window. Where there is neither table nor window, the range is
0 … `data.white_level` where that is set, and else the image's own, from its smallest to its largest value. MONOCHROME1
is inverted, YBR and palettes become RGB.
"""

import functools
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from jaxnets.data.sources.base import CorruptImage

if TYPE_CHECKING:
    from pydicom import Dataset

SUFFIXES = (".dcm", ".dicom")  # in lower case; many have none, or end as numbers do: 1.2.840.113619.2
REMEDY = "pip install 'jaxnets[dicom]'"  # where they cannot be read

_PREAMBLE, _MAGIC = 128, b"DICM"  # bytes of anything, and what follows them (PS3.10, 7.1)
_SET = 65535  # data.white_level below this was set by somebody
_GROUPS = (0x52009229, 0x52009230)  # functional groups, shared and of each frame


@functools.cache
def is_readable() -> bool:
    """Tells whether pydicom is installed."""
    return importlib.util.find_spec("pydicom") is not None


def may_be_named(suffix: str) -> bool:
    """Tells whether a file with this suffix, in lower case, may be a DICOM file for all that its name says."""
    return suffix in SUFFIXES or suffix[1:].isdecimal() or not suffix


def is_called_one(file: Path | BinaryIO) -> bool:
    """Tells whether nothing in a file's name says that it is something else; what has no name may be one."""
    return not isinstance(file, Path) or may_be_named(file.suffix.lower())


def is_dicom(file: Path | BinaryIO) -> bool:
    """Tells whether a file is a DICOM file by its first bytes; False for one that cannot be read.

    One that is open is left at its start.
    """
    try:
        if isinstance(file, Path):
            with file.open("rb") as opened:
                return _has_magic(opened)
        return _has_magic(file)
    except OSError:  # whoever reads it as something else meets the same, and says so
        return False


def _has_magic(opened: BinaryIO) -> bool:
    opened.seek(_PREAMBLE)
    found = opened.read(len(_MAGIC)) == _MAGIC
    opened.seek(0)
    return found


def decode(file: Path | BinaryIO, name: str, white_level: int = _SET) -> UInt8[np.ndarray, "h w c"]:
    """Returns the pixels of the first frame, c = 1 for grey and 3 for RGB.

    Args:
        file: where it is, or its bytes as a file opened for reading.
        name: what the messages call it.
        white_level: of an image that says nothing of its range, the value (after the modality transform) that becomes
            255; 65535 means that its own range counts.

    Raises:
        CorruptImage: if it cannot be read or is too large, or where a package is missing, with its name.
    """
    if not is_readable():
        raise CorruptImage(f"{name} is a DICOM file, and what reads these is missing: {REMEDY}")
    from pydicom import Dataset
    from pydicom.pixels import apply_color_lut, pixel_array

    header = Dataset()
    try:
        header = _read_header(file)
        if "PhotometricInterpretation" not in header:
            kind = header.get("Modality") or "of no modality"
            raise CorruptImage(f"{name} is a DICOM file without an image ({kind})")
        height, width, _ = _shape(header)
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and height * width > limit:
            raise CorruptImage(
                f"{name} has {width} × {height} pixels, more than the {limit:,} that are allowed: shrink it, or raise "
                f"PIL.Image.MAX_IMAGE_PIXELS if you trust it"
            )
        about = Dataset()
        stored = pixel_array(file, ds_out=about, specific_tags=list(_GROUPS), index=0)
        if about.PhotometricInterpretation == "PALETTE COLOR":
            return _upper_eight(apply_color_lut(stored, about)[..., :3], 16)
        if stored.ndim == 3:
            return _upper_eight(stored, int(about.BitsStored))
        brightness = _brightness(stored, about, white_level)
        if about.PhotometricInterpretation == "MONOCHROME1":
            brightness = 1 - brightness
        # What is no number, in an image of floating-point numbers, is as dark as padding.
        return (np.nan_to_num(brightness, nan=0) * 255 + 0.5).astype(np.uint8)[..., None]
    except (CorruptImage, MemoryError):
        raise
    except FileNotFoundError:
        raise CorruptImage(f"{name} does not exist") from None
    except Exception as error:  # AttributeError, NotImplementedError, RuntimeError, struct.error: whatever is damaged
        raise CorruptImage(f"{name} cannot be decoded: {_reason(error, header)}") from error


def read_shape(file: Path | BinaryIO) -> tuple[int, int, int] | None:
    """Returns height, width and channels as `decode` will give them, from the header; None if it is unreadable."""
    if not is_dicom(file) or not is_readable():
        return None
    try:
        return _shape(_read_header(file))
    except Exception:  # whatever pydicom raises on damaged bytes; `decode` says of the same file what it is
        return None


def _read_header(file: Path | BinaryIO) -> "Dataset":
    from pydicom import dcmread

    tags: list[Any] = ["Rows", "Columns", "PhotometricInterpretation", "Modality"]
    return dcmread(file, stop_before_pixels=True, specific_tags=tags)


def _shape(header: "Dataset") -> tuple[int, int, int]:
    grey = header.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2")
    return int(header.Rows), int(header.Columns), 1 if grey else 3


def _upper_eight(colours: np.ndarray, bits: int) -> UInt8[np.ndarray, "h w 3"]:
    return colours if colours.dtype == np.uint8 else (colours >> max(bits - 8, 0)).clip(0, 255).astype(np.uint8)


def _brightness(stored: np.ndarray, about: "Dataset", white_level: int) -> Float[np.ndarray, "h w"]:
    """Returns stored values as 0 … 1, dark to bright."""
    from pydicom.pixels import apply_modality_lut, apply_voi

    # In files of many frames, what holds for one of them lies in groups of their own (PS3.3 C.7.6.16).
    values = apply_modality_lut(stored, _first_frame(about, "PixelValueTransformationSequence"))
    voi = _first_frame(about, "FrameVOILUTSequence")
    if voi.get("VOILUTSequence"):
        bits = int(voi.VOILUTSequence[0].LUTDescriptor[2])
        return apply_voi(np.rint(values).astype(np.int32), voi, index=0) / (2.0**bits - 1)
    centre, width = _first(voi.get("WindowCenter")), _first(voi.get("WindowWidth"))
    if centre is not None and width is not None and width > 0:
        return _windowed(values.astype(np.float64), centre, width, str(voi.get("VOILUTFunction") or "LINEAR"))
    if white_level < _SET:
        low, high = 0.0, float(white_level)
    else:
        shown = values[~_padding(stored, about) & np.isfinite(values)]
        if not shown.size:
            return np.zeros(values.shape)
        low, high = float(shown.min()), float(shown.max())
    return ((values.astype(np.float64) - low) / ((high - low) or 1)).clip(0, 1)


def _windowed(values: Float[np.ndarray, "h w"], centre: float, width: float, function: str) -> Float[np.ndarray, "h w"]:
    """Returns what a window makes of values (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR":
        centre, width = centre - 0.5, max(width - 1, 1e-9)
    return ((values - centre) / width + 0.5).clip(0, 1)


def _padding(stored: np.ndarray, about: "Dataset") -> np.ndarray:
    """Returns which pixels were added around the image (PS3.3 C.7.5.1.1.2)."""
    value = _first(about.get("PixelPaddingValue"))
    if value is None:
        return np.zeros(stored.shape, bool)
    other = _first(about.get("PixelPaddingRangeLimit"))
    ends = sorted((value, value if other is None else other))
    return (stored >= ends[0]) & (stored <= ends[1])


def _first_frame(about: "Dataset", name: str) -> "Dataset":
    """Returns where something is said of the first frame: its own group, the one that all share, or the file."""
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        sequence = about.get(groups)
        found = sequence[0].get(name) if sequence else None
        if found:
            item: Dataset = found[0]
            return item
    return about


def _first(value: Any) -> float | None:
    """Returns the first of one or several numbers; None where there is none."""
    if value is None or (not isinstance(value, str) and np.size(value) == 0) or value == "":
        return None
    return float(value if np.ndim(value) == 0 else value[0])


def _reason(error: Exception, header: "Dataset") -> str:
    """Returns what went wrong, and what else could decode the file's transfer syntax if it were installed."""
    from pydicom.pixels import get_decoder

    text = " ".join(str(error).split()) or type(error).__name__
    try:
        syntax = header.file_meta.TransferSyntaxUID
        decoder = get_decoder(syntax)
    except (AttributeError, NotImplementedError):
        return text
    others = ", or ".join(each.partition(" requires ")[2] for each in decoder.missing_dependencies)
    if not decoder.is_available:
        return f"nothing that is installed reads {syntax.name}: install {others}"
    return f"{text}; {syntax.name} is also read by {others}" if others else text
