"""MNIST's file format, IDX: MNIST itself, Fashion-MNIST, Kuzushiji-MNIST, EMNIST and whatever else is kept in it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from jaxnets.config import DataConfig
from jaxnets.data.sources.base import ArraySplit, Source
from jaxnets.data.sources.idx_file import read_idx
from jaxnets.errors import UserError

# train-images-idx3-ubyte.gz, t10k-labels.idx1-ubyte, emnist-letters-test-images-idx3-ubyte.gz, …
_NAME = re.compile(
    r"(?P<set>.*?)[-_]?(?P<split>train|t10k|test)[-_](?P<kind>images|labels)[-.]idx(?P<rank>\d)-ubyte(\.gz)?", re.I
)
_USUAL = {
    ("train", "images"): "train-images-idx3-ubyte[.gz]",
    ("train", "labels"): "train-labels-idx1-ubyte[.gz]",
    ("test", "images"): "t10k-images-idx3-ubyte[.gz]",
    ("test", "labels"): "t10k-labels-idx1-ubyte[.gz]",
}
_LARGEST_LIST = 1 << 20  # bytes of a list of class names that is read at all


@dataclass
class _Files:
    """One data set's files: (split, kind) → path."""

    prefix: str  # "emnist-letters"; empty for MNIST's own names
    paths: dict[tuple[str, str], Path] = field(default_factory=dict)


def open_idx(location: str, _spec: DataConfig, _known: Sequence[str] | None) -> Source:
    """Opens the IDX files of a folder, plain or gzipped, and reads them into memory.

    EMNIST's images are stored with rows and columns exchanged (they come from a Matlab matrix), and TFDS and
    torchvision hand them out that way; those of files called emnist-* are turned upright here, so that a model trained
    on them reads what a person sees. EMNIST's letters are numbered from 1: here, as everywhere, classes start at 0.

    Args:
        location: the folder; where it has several data sets (EMNIST's archive has six), the folder and the beginning of
            the file names, as in `DIR/emnist-letters`. IDX has no class names: they are taken from `classes.txt` or
            `labels.txt` (one name a line, in the order of the labels) or from EMNIST's `*-mapping.txt` in the folder,
            and are the labels themselves where there is none of these.

    Returns:
        A source in memory, uint8 `[n, h, w, c]`.

    Raises:
        UserError: for a missing folder or file, a file that is no IDX file, is cut off or holds more than it says, and
            for images and labels that do not fit together.
    """
    folder, files = _find(location)
    splits: dict[str, ArraySplit] = {}
    for split in ("train", "test"):
        images = _read_images(files.paths[split, "images"], transposed=files.prefix.lower().startswith("emnist"))
        labels = read_idx(files.paths[split, "labels"], ranks=(1,))
        if len(images) != len(labels):
            raise UserError(
                f"{files.paths[split, 'images']} has {len(images)} images and {files.paths[split, 'labels'].name} "
                f"{len(labels)} labels: they must be of the same data set and split; fetch both again"
            )
        splits[split] = ArraySplit(images, labels.astype(np.int32))
    shapes = {split: read.images.shape[1:] for split, read in splits.items()}
    if shapes["train"] != shapes["test"]:
        raise UserError(
            f"the images of train and test in {folder} must have one shape (height, width, channels), found "
            f"{shapes['train']} and {shapes['test']}: they are of different data sets"
        )
    names = _class_names(folder, files.prefix, [read.labels for read in splits.values()])
    height, width, channels = shapes["train"]
    return Source(
        description=f"idx:{location}",
        class_names=tuple(names.values()),
        splits={
            split: ArraySplit(read.images, _renumber(read.labels, list(names), files.paths[split, "labels"]), split)
            for split, read in splits.items()
        },
        image_size=(height, width),
        channels=1 if channels == 1 else 3,
    )


def _find(location: str) -> tuple[Path, _Files]:
    path = Path(location).expanduser()
    folder, wanted = (path, None) if path.is_dir() else (path.parent, path.name)
    if not folder.is_dir() or (wanted is not None and not _sets_in(folder)):
        raise UserError(
            f"config.data.source idx:{location}: the folder {path} does not exist; give the one with the files"
        )
    sets = _sets_in(folder)
    if not sets:
        below = sorted({str(found.parent) for depth in ("*", "*/*") for found in folder.glob(f"{depth}/*-ubyte*")})
        raise UserError(
            f"{folder} has no IDX files: expected {', '.join(_USUAL.values())}"
            + (f"; they are in {below[0]}: give that folder" if below else "")
        )
    if wanted is None and len(sets) > 1:
        names = ", ".join(sorted(prefix or "(no prefix)" for prefix in sets))
        choice = max(sets)
        raise UserError(f"{folder} has {len(sets)} data sets: {names}; choose one, as in idx:{folder / choice}")
    if wanted is not None and wanted not in sets:
        raise UserError(f"{folder} has no data set {wanted!r}; it has {', '.join(sorted(sets))}")
    files = sets[wanted if wanted is not None else next(iter(sets))]
    for key, usual in _USUAL.items():
        if key not in files.paths:
            name = f"{files.prefix}-{usual.replace('t10k', 'test')}" if files.prefix else usual
            found = ", ".join(sorted(path.name for path in files.paths.values()))
            raise UserError(f"{folder} lacks the {key[1]} of the {key[0]} split, {name}; it has {found}")
    return folder, files


def _sets_in(folder: Path) -> dict[str, _Files]:
    sets: dict[str, _Files] = {}
    # In reverse, so that of a file and its .gz the plain one, which comes earlier, is what remains.
    for path in sorted(folder.iterdir(), reverse=True):
        match = _NAME.fullmatch(path.name)
        if match and path.is_file():
            split = "train" if match["split"].lower() == "train" else "test"
            files = sets.setdefault(match["set"], _Files(match["set"]))
            files.paths[split, match["kind"].lower()] = path
    return sets


def _read_images(path: Path, transposed: bool) -> UInt8[np.ndarray, "n h w c"]:
    images = read_idx(path, ranks=(3, 4))
    if images.ndim == 3:
        images = images[..., None]
    if images.shape[3] not in (1, 3, 4):
        raise UserError(f"{path} must have images of 1, 3 or 4 channels in its last dimension, found {images.shape[3]}")
    return np.ascontiguousarray(images.swapaxes(1, 2)) if transposed else images


def _class_names(folder: Path, prefix: str, labels: list[Int32[np.ndarray, " n"]]) -> dict[int, str]:
    """Returns label as stored → name, in the order of the classes."""
    least, largest = min(int(part.min()) for part in labels), max(int(part.max()) for part in labels)
    first = 1 if least == 1 else 0
    mapping = folder / f"{prefix}-mapping.txt"
    if prefix and mapping.is_file():
        return _read_mapping(mapping)
    for listed in (folder / "classes.txt", folder / "labels.txt"):
        if listed.is_file():
            names = [line.strip() for line in _read_lines(listed) if line.strip()]
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise UserError(f"{listed} must name each class once, found {twice!r} twice")
            # Labels without a 0 are numbered from 1, unless the list has one more name than that.
            start = first if len(names) == largest else 0
            if start + len(names) <= largest:
                raise UserError(
                    f"{listed} has {len(names)} names, and the labels go from {least} to {largest}: it needs one name "
                    f"a line for each of {largest + 1 - first} classes"
                )
            return dict(enumerate(names, start))
    return {label: str(label) for label in range(first, largest + 1)}


def _read_mapping(path: Path) -> dict[int, str]:
    """Reads EMNIST's mapping: a label, then the ASCII codes of its characters ("1 65 97": A and a)."""
    names: dict[int, str] = {}
    for number, line in enumerate(_read_lines(path), 1):
        words = line.split()
        if not words:
            continue
        if len(words) < 2 or not all(word.isdecimal() and int(word) < 256 for word in words):
            raise UserError(f"{path}, line {number}: expected a label and character codes below 256, found {line!r}")
        names[int(words[0])] = "/".join(chr(int(code)) for code in words[1:])
    return dict(sorted(names.items()))


def _read_lines(path: Path) -> list[str]:
    if path.stat().st_size > _LARGEST_LIST:
        raise UserError(f"{path} has {path.stat().st_size} bytes, too many for a list of class names: remove it")
    try:
        return path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} must be text in UTF-8: {error}") from None


def _renumber(labels: Int32[np.ndarray, " n"], known: list[int], path: Path) -> Int32[np.ndarray, " n"]:
    """Returns each label's position in `known`."""
    position = np.full(256, -1, np.int32)
    position[known] = np.arange(len(known))
    renumbered = position[labels]
    if (renumbered < 0).any():
        index = int(np.argmax(renumbered < 0))
        raise UserError(
            f"label {labels[index]} at position {index} of {path} has no class name: the names are for labels "
            f"{known[0]} to {known[-1]}"
        )
    return renumbered
