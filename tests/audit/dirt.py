"""Makes a folder of images dirty on purpose: what is planted, in which files, and what an audit must call it.

Used by the tests on made images, and by tools/audit_dirt.py on photographs.
"""

import io
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

Make = Callable[[Image.Image, np.random.Generator], "Image.Image | bytes"]


@dataclass(frozen=True)
class Planted:
    kind: str  # of dirt
    found_as: str  # kind of the finding that must name it
    files: tuple[Path, ...]  # all of them must be named, and in one case where they are several


def _bytes(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _noise(image: Image.Image, rng: np.random.Generator, level: int, spread: int) -> Image.Image:
    pixels = rng.integers(level - spread, level + spread + 1, (image.height, image.width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def _bomb(*_: object) -> bytes:
    """A PNG whose header promises 30,000 × 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def _twelve_bits(image: Image.Image, rng: np.random.Generator) -> bytes:
    return _bytes(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 16), "PNG")


def _turned(image: Image.Image, rng: np.random.Generator) -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return _bytes(image, exif=exif)


def _cut_off(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    lost = image.copy()
    lost.paste((128, 128, 128), (0, image.height * 6 // 10, image.width, image.height))
    return lost


def _panorama(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.resize((image.width * 2, max(image.height // 6, 8)))


def _dark(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    # A tenth of the pixels stand out, so that it is dark and not blank.
    dark = ImageEnhance.Brightness(image).enhance(0.02)
    ImageDraw.Draw(dark).ellipse((0, 0, image.width // 5, image.height // 5), fill=(40, 40, 40))
    return dark


def _crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = round(image.width * 0.92), round(image.height * 0.92)
    left, top = (
        int(rng.integers(0, whole - kept + 1)) for whole, kept in ((image.width, width), (image.height, height))
    )
    return image.crop((left, top, left + width, top + height))


def _stamped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    stamped = image.copy()
    box = (image.width // 20, image.height // 20, image.width // 4, image.height // 8)
    ImageDraw.Draw(stamped).rectangle(box, fill="white")
    return stamped


# kind → (what the audit calls it, what the file becomes). Of images that are changed where they are.
ALONE: dict[str, tuple[str, Make]] = {
    "zero bytes": ("unreadable", lambda image, rng: b""),
    "cut short": ("unreadable", lambda image, rng: _bytes(image)[: len(_bytes(image)) // 2]),
    "text": ("unreadable", lambda image, rng: b"<html>404 Not Found</html>"),
    "promises 30,000 × 30,000 pixels": ("unreadable", _bomb),
    "one colour": ("blank", lambda image, rng: Image.new("RGB", image.size, (90, 120, 60))),
    "nearly one colour": ("blank", lambda image, rng: _noise(image, rng, 200, 4)),
    "tiny": ("tiny", lambda image, rng: image.resize((12, 10))),
    "grey": ("grey", lambda image, rng: image.convert("L").convert("RGB")),
    "panorama": ("aspect", _panorama),
    "12 bits in 16": ("sixteen_bits", _twelve_bits),
    "turned by EXIF": ("exif_turned", _turned),
    "PNG called .jpg": ("odd_files", lambda image, rng: _bytes(image, "PNG")),
    "CMYK": ("odd_files", lambda image, rng: image.convert("CMYK")),
    "saved after it was cut off": ("cut_off", _cut_off),
    "nearly black": ("exposure", _dark),
}

# kind → (what the audit calls it, split, whether under another class, suffix, what the copy is).
COPIES: dict[str, tuple[str, str, bool, str, Make]] = {
    "copy": ("exact_duplicates", "train", False, "", lambda image, rng: b"copy"),
    "copy as PNG": ("exact_duplicates", "train", False, ".png", lambda image, rng: image),
    "rotated copy": ("near_duplicates", "train", False, "", lambda image, rng: image.rotate(90, expand=True)),
    "edited copy": (
        "near_duplicates",
        "train",
        False,
        "",
        lambda image, rng: ImageEnhance.Contrast(ImageEnhance.Brightness(image).enhance(1.25)).enhance(0.8),
    ),
    "stamped copy": ("near_duplicates", "train", False, "", _stamped),
    "copy in test": ("leakage", "test", False, "", lambda image, rng: b"copy"),
    "coarser copy in test": ("leakage", "test", False, "", lambda image, rng: _bytes(image, quality=30)),
    "smaller copy in test": ("leakage", "test", False, "", lambda image, rng: image.reduce(2)),
    "mirrored copy in test": ("leakage", "test", False, "", lambda image, rng: ImageOps.mirror(image)),
    "cropped copy in test": ("leakage", "test", False, "", _crop),
    "copy under another label": ("contradiction", "train", True, "", lambda image, rng: b"copy"),
    "coarser copy under another label": (
        "contradiction",
        "train",
        True,
        "",
        lambda image, rng: _bytes(image, quality=40),
    ),
}
MOVED = "under the wrong label"


def plant(folder: Path, each: int, seed: int) -> list[Planted]:
    """Makes `folder`/train and `folder`/test dirty, each kind so many times, and returns what was done where.

    Images of the split "train" are changed, copied or moved, each once.
    """
    rng = np.random.default_rng(seed)
    classes = sorted(path.name for path in (folder / "train").iterdir())
    waiting = iter(_spread(folder / "train", classes, rng))
    planted = []
    for kind, (found_as, make) in ALONE.items():
        for _ in range(each):
            file = next(waiting)
            _write(file, make(_open(file), rng), file)
            planted.append(Planted(kind, found_as, (file,)))
    for kind, (found_as, split, elsewhere, suffix, make) in COPIES.items():
        for _ in range(each):
            file = next(waiting)
            name = file.parent.name
            other = classes[(classes.index(name) + 1) % len(classes)] if elsewhere else name
            copy = folder / split / other / f"{file.stem}-{kind.replace(' ', '-')}{suffix or file.suffix}"
            _write(copy, make(_open(file), rng), file)
            planted.append(Planted(kind, found_as, (file, copy)))
    for _ in range(each):
        file = next(waiting)
        other = classes[(classes.index(file.parent.name) + 1) % len(classes)]
        moved = file.parent.parent / other / f"{file.stem}-moved{file.suffix}"
        shutil.move(file, moved)
        planted.append(Planted(MOVED, "wrong_label", (moved,)))
    return planted


def _spread(train: Path, classes: list[str], rng: np.random.Generator) -> Iterator[Path]:
    """Yields files of the classes by turns, each class in an order of its own."""
    files = [sorted((train / name).iterdir()) for name in classes]
    orders = [rng.permutation(len(listed)) for listed in files]
    for turn in range(min(map(len, files))):
        for listed, order in zip(files, orders, strict=True):
            yield listed[order[turn]]


def _open(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


def _write(target: Path, content: Image.Image | bytes, original: Path) -> None:
    if content == b"copy":
        shutil.copyfile(original, target)
    elif isinstance(content, bytes):
        target.write_bytes(content)
    elif target.suffix == ".png":
        content.save(target)
    else:
        content.save(target, "JPEG", quality=90)


def missed(planted: list[Planted], report: dict) -> list[Planted]:
    """Returns what was planted and is not in an audit's JSON: all files of one in one case of the right finding."""
    cases = {
        finding["kind"]: [{Path(image["file"]) for image in case["images"]} for case in finding["cases"]]
        for finding in report["findings"]
    }
    return [
        each for each in planted if not any(set(each.files) <= case for case in cases.get(each.found_as, ()))
    ]  # fmt: skip


def accused(planted: list[Planted], report: dict) -> list[tuple[str, str]]:
    """Returns images with which nothing was done and that a finding accuses, as a warning or worse."""
    touched = {file for each in planted for file in each.files}
    return [
        (finding["kind"], image["file"])
        for finding in report["findings"]
        if finding["severity"] != "note"
        for case in finding["cases"]
        for image in case["images"]
        if Path(image["file"]) not in touched
    ]
