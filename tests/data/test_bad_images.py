"""What users' folders hold beside good images: it is read as what it is, or refused with its name and what to do."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxnets.config import resolve
from jaxnets.data.dataset import open_dataset
from jaxnets.errors import UserError
from tests.data.sources.images import fill

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
SMOOTH = np.add.outer(np.arange(40) * 3, np.arange(60) * 2).astype(np.uint8)
ACTION = "mend or remove it, or go on without such images with --config.data.skip_corrupt=true"


def encoded(pixels: np.ndarray, format: str, mode: str | None = None, **options) -> bytes:
    content, image = io.BytesIO(), Image.fromarray(pixels)
    (image.convert("RGB").convert(mode) if mode else image).save(content, format, **options)
    return content.getvalue()


def huge_png(side: int) -> bytes:
    """Returns the few bytes of a PNG that says to have side × side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def dataset(root: Path, name: str, content: bytes, **data):
    """Opens a folder of good images, one file beside them; it comes first in training."""
    for split in ("train", "test"):
        for kind in ("cat", "dog"):
            fill(root / split / kind, 2, size=(60, 40))
    path = os.fsdecode(os.path.join(os.fsencode(root), b"train/cat", os.fsencode("!" + name)))
    Path(path).write_bytes(content)
    defaults = {"image_size": [40, 60], "mean": [0.5] * 3, "std": [0.5] * 3}
    return open_dataset(resolve({"data": {"source": f"folder:{root}", **defaults, **data}}))


TRUNCATED = encoded(NOISE, "JPEG")[:-1500]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jpg", TRUNCATED, r"train/cat/!a\.jpg cannot be decoded: .*truncated"),
        ("a.png", encoded(NOISE, "PNG")[:3000], r"train/cat/!a\.png cannot be decoded: "),
        (
            "a.jpg",
            b"",
            r"train/cat/!a\.jpg is not an image that can be read \(JPEG, PNG, WebP, BMP, TIFF, GIF or DICOM\)",
        ),
        ("a.jpg", b"\0" * 2000, r"train/cat/!a\.jpg is not an image that can be read"),
        ("a.jpg", b"<html>404 Not Found</html>", r"train/cat/!a\.jpg is not an image that can be read"),
        (
            "a.png",
            huge_png(30_000),
            r"train/cat/!a\.png is too large \(.*900000000 pixels.*\): shrink it, or raise PIL",
        ),
        ("a.png", huge_png(10_000), r"!a\.png has 10000 × 10000 pixels, more than the 89,478,485 .*: shrink it, or"),
        (os.fsdecode(b"caf\xe9.jpg"), TRUNCATED, r"train/cat/!caf\\xe9\.jpg cannot be decoded"),
        ("猫.jpg", TRUNCATED, r"train/cat/!猫\.jpg cannot be decoded"),
        ("a.tif", encoded(NOISE, "TIFF")[:5000], r"train/cat/!a\.tif "),
        ("a.gif", encoded(SMOOTH, "GIF")[:300], r"train/cat/!a\.gif "),
        ("a.dcm", b"\0" * 128 + b"DICM" + b"\1" * 50, r"train/cat/!a\.dcm "),
    ],
)
def test_what_cannot_be_read_stops_training_with_its_name_and_what_to_do(tmp_path, name, content, said):
    data = dataset(tmp_path, name, content)
    with pytest.raises(UserError, match=f"{said}.*") as refused:
        data.training.read(0)
    assert str(refused.value).endswith(ACTION)
    without = dataset(tmp_path, name, content, skip_corrupt=True).training
    assert without.read_substituting(0, np.empty(without.shape, np.uint8)) != 0


def test_an_image_that_there_is_no_memory_for_is_not_passed_over_as_corrupt(tmp_path, monkeypatch):
    def out_of_memory(*_):
        raise MemoryError

    some = dataset(tmp_path, "a.png", encoded(NOISE, "PNG"), skip_corrupt=True).training
    monkeypatch.setattr("jaxnets.data.decode._load", out_of_memory)
    with pytest.raises(UserError, match=r"no memory left to decode .*!a\.png: .*config\.data\.threads"):
        some.read_substituting(0, np.empty(some.shape, np.uint8))


@pytest.mark.parametrize(
    ("name", "content", "pixels", "most"),
    [
        ("a.jpg", encoded(NOISE, "PNG"), NOISE, 0),
        ("a.png", encoded(SMOOTH, "JPEG", quality=98), np.dstack([SMOOTH] * 3), 4),
        ("a.jpg", encoded(SMOOTH, "JPEG", "CMYK", quality=100), np.dstack([SMOOTH] * 3), 6),
        ("a.png", encoded(SMOOTH.astype(np.uint16) * 257, "PNG"), np.dstack([SMOOTH] * 3), 0),
        ("a.tif", encoded(SMOOTH.astype(np.uint16) * 257, "TIFF"), np.dstack([SMOOTH] * 3), 0),
        ("a.tif", encoded(NOISE, "TIFF", "CMYK"), NOISE, 1),
        (
            "a.gif",
            encoded(SMOOTH, "GIF", save_all=True, append_images=[Image.fromarray(255 - SMOOTH)]),
            np.dstack([SMOOTH] * 3),
            0,
        ),
        (os.fsdecode(b"caf\xe9.png"), encoded(NOISE, "PNG"), NOISE, 0),
    ],
    ids=[
        "PNG as jpg",
        "JPEG as png",
        "CMYK",
        "16 bits",
        "16 bits TIFF",
        "CMYK TIFF",
        "animated GIF",
        "undecodable name",
    ],
)
def test_what_is_odd_and_whole_is_read_as_what_it_shows(tmp_path, name, content, pixels, most):
    image = dataset(tmp_path, name, content).training.read(0).image
    np.testing.assert_allclose(image.astype(int), pixels.astype(int), atol=most)
