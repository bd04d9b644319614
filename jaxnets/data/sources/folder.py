"""Folders of image files, one folder for each class."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from jaxnets.cores import cores
from jaxnets.data.decode import SUFFIXES, decode, read_header
from jaxnets.data.sources.base import Source
from jaxnets.data.split import stratified_split
from jaxnets.errors import UserError

_TRAIN = ("train", "training")
_TEST = ("test", "testing")
_VALIDATION = ("val", "valid", "validation")
_MOST_HEADERS = 20_000  # images whose headers are all read; 0.1 ms each
_SAMPLE = 2_000  # headers read of a larger set, evenly spread
_CHUNK = 256  # headers between two looks at whether the answer is known already
_LAYOUTS = "DIR/train/CLASS/*.jpg with DIR/test/CLASS/*.jpg, or DIR/CLASS/*.jpg"


@dataclass(frozen=True)
class FileSplit:
    """Image files and their classes; decoded when asked for."""

    paths: Sequence[str]  # strings: a million of Path objects take gigabytes
    labels: Int32[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> UInt8[np.ndarray, "h w c"]:
        """Decodes one file (`jaxnets.data.decode`); raises CorruptImage with its path."""
        return decode(Path(self.paths[index]), self.paths[index])


def open_folder(location: str, test_share: float, seed: int) -> Source:
    """Opens a folder of class folders.

    `DIR/train/CLASS/*` with `DIR/test/CLASS/*`; where there is no `test`, `val`, `valid` or `validation` is the test
    split, and where there is one, a split "validation" of its own. Without either, and for `DIR/CLASS/*` alone, a test
    split is drawn from the seed. Images may lie in folders within a class folder. Hidden files and files of
    other suffixes than .jpg, .jpeg, .png, .webp and .bmp are passed over. Links are followed.

    Args:
        location: the folder.
        test_share: of each class that becomes the test split where there is none.
        seed: of that split.

    Returns:
        A source whose class names are the sorted names of the training folders. `image_size` is None where images
        differ, and for more than 20,000 of them, whose headers are not all looked at.

    Raises:
        UserError: if the folder is missing, has no class folders or only one, if a class folder has no images, or if
            a class has test images and no training images.
    """
    root = Path(location).expanduser()
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise UserError(f"config.data.source folder:{location}: {root} {what}; expected {_LAYOUTS}")
    parts = _parts(root)
    train_root = parts.pop("train", root)
    names = _class_folders(train_root)
    if len(names) < 2:
        raise UserError(_too_few(train_root, names))
    splits = {"train": _list(train_root, names)}
    for split, folder in parts.items():
        present = _class_folders(folder)
        if not present:
            raise UserError(
                f"{folder} has no class folders: expected some of {', '.join(names[:5])}, as in {train_root}"
            )
        unknown = [name for name in present if name not in names]
        if unknown:
            raise UserError(
                f"{folder} has the class {unknown[0]!r}, which {train_root} has not"
                + (f" (nor {len(unknown) - 1} more)" if len(unknown) > 1 else "")
                + ": every class needs training images; add them, or remove the folder"
            )
        splits[split] = _list(folder, names, present)
    if "test" not in splits:
        everything = splits["train"]
        for split, chosen in zip(("train", "test"), stratified_split(everything.labels, test_share, seed), strict=True):
            splits[split] = FileSplit([everything.paths[i] for i in chosen], everything.labels[chosen])
    image_size, channels = _look([path for split in splits.values() for path in split.paths])
    return Source(
        description=f"folder:{location}",
        class_names=tuple(names),
        splits=splits,
        image_size=image_size,
        channels=channels,
    )


def _parts(root: Path) -> dict[str, Path]:
    """Returns split → folder; empty for one level of class folders."""
    folders = {name.lower(): root / name for name in _class_folders(root)}

    def first(names: tuple[str, ...]) -> Path | None:
        return next((folders[name] for name in names if name in folders), None)

    train, test, validation = first(_TRAIN), first(_TEST), first(_VALIDATION)
    others = len(folders) - sum(part is not None for part in (train, test, validation))
    # A set of vehicles may have a class "train": with images where a split has folders, and other classes beside it.
    if train is None or (not _class_folders(train) and others):
        return {}
    parts = {"train": train}
    if test or validation:
        parts["test"] = test or validation  # type: ignore[assignment]
    if test and validation:
        parts["validation"] = validation
    return parts


def _class_folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            entry.name for entry in entries if entry.is_dir() and not entry.name.startswith((".", "__MACOSX"))
        )


def _list(root: Path, names: list[str], present: list[str] | None = None) -> FileSplit:
    """Lists the images of the class folders `present` (all of `names` if None), sorted, labelled as in `names`."""
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        if present is not None and name not in present:
            continue
        images, others = list_images(root / name)
        if not images:
            found = ", ".join(f"{count} of {suffix or 'no suffix'}" for suffix, count in others.most_common(5))
            raise UserError(
                f"the class folder {root / name} has no image files ({', '.join(SUFFIXES)}), found "
                f"{found or 'nothing'}: add images, or remove the folder"
            )
        paths += images
        labels += [label] * len(images)
    return FileSplit(paths, np.array(labels, np.int32))


def image_files(given: Iterable[Path]) -> list[Path]:
    """Returns the files that are named, and the images below the folders that are.

    Raises:
        UserError: for a folder without images.
    """
    files: list[Path] = []
    for path in given:
        found = [Path(file) for file in list_images(path)[0]] if path.is_dir() else [path]
        if not found:
            raise UserError(f"there is no image (JPEG, PNG, WebP or BMP) in the folder {path}")
        files += found
    return files


def list_images(folder: Path) -> tuple[list[str], Counter[str]]:
    """Returns the image files below a folder, sorted, and how many files of each other suffix there are."""
    images: list[str] = []
    others: Counter[str] = Counter()
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:  # a link to a folder above: it would go round for ever
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if name.startswith("."):
                continue
            suffix = os.path.splitext(name)[1].lower()
            if suffix in SUFFIXES:
                images.append(os.path.join(here, name))
            else:
                others[suffix] += 1
    return sorted(images), others


def _too_few(folder: Path, names: list[str]) -> str:
    flat = sum(entry.suffix.lower() in SUFFIXES for entry in folder.iterdir())
    found = f"{len(names)} class folder ({names[0]})" if names else "no class folders"
    return (
        f"{folder} must have two or more class folders with images in them, found {found}"
        + (f" and {flat} images that belong to no class: move each into its class's folder" if flat else "")
        + f"; expected {_LAYOUTS}"
    )


def _look(paths: Sequence[str]) -> tuple[tuple[int, int] | None, int]:
    """Returns the size that all images have, or None, and 1 if all are grey, or 3; from headers that can be read."""
    complete = len(paths) <= _MOST_HEADERS
    order = np.linspace(0, len(paths) - 1, len(paths) if complete else _SAMPLE).astype(int)
    # Images that differ lie far apart as a rule, in other classes or splits: strides find them in the first chunk.
    stride = -(-len(order) // _CHUNK)
    sizes: set[tuple[int, int]] = set()
    colour = False
    with ThreadPoolExecutor(min(32, 4 * cores())) as pool:
        for start in range(stride):
            for header in pool.map(lambda index: read_header(Path(paths[index])), order[start::stride]):
                if header is not None:
                    sizes.add(header[:2])
                    colour = colour or header[2] != 1
            if colour and (len(sizes) > 1 or not complete):
                break
    size = next(iter(sizes)) if len(sizes) == 1 and complete else None
    return size, 1 if sizes and not colour else 3
