"""Folders of image files, one folder for each class."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxnets.config import DataConfig
from jaxnets.data.decode import READABLE
from jaxnets.data.sources.base import Source
from jaxnets.data.sources.files import FileSplit, survey
from jaxnets.data.sources.layout import EXPECTED, Classes, read_labelled, read_layout
from jaxnets.data.sources.names import printable
from jaxnets.data.sources.paths import Chain, Paths
from jaxnets.data.sources.scan import Folder, image_paths, other_files, passed_over
from jaxnets.errors import UserError

_log = logging.getLogger(__name__)


def open_folder(location: str, spec: DataConfig, known: Sequence[str] | None) -> Source:
    """Opens a folder of class folders.

    `DIR/train/CLASS/*` with `DIR/test/CLASS/*`, under any of the names that splits have; where there is no test split,
    the validation split is it, and where there is one, a split "validation" of its own. Or `DIR/CLASS/*` alone, which
    is "train". Images may lie in folders within a class folder. Links are followed. Hidden files, and those that are
    neither called as images (`jaxnets.data.decode.SUFFIXES`) nor DICOM files, are passed over, which the notes count.

    Args:
        location: the folder.
        spec: `white_level` of images of 16 bits.
        known: classes to evaluate on; what is there of them is opened, in the splits that are there, or as "all".

    Returns:
        A source whose class names are the sorted names of the training folders, or the known ones.

    Raises:
        UserError: if the folder is missing, its layout cannot be told, it has no class folders or only one, a class
            folder has no images, or a class is tested that is not trained.
    """
    root = Path(location).expanduser()
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise UserError(
            f"config.data.source folder:{printable(location)}: {printable(str(root))} {what}; expected {EXPECTED}"
        )
    layout = read_layout(Folder(str(root))) if known is None else read_labelled(Folder(str(root)), known)
    names = sorted(layout.splits["train"][1]) if known is None else list(known)
    splits = {
        split: _list(folder, classes, names, spec.white_level) for split, (folder, classes) in layout.splits.items()
    }
    others: Counter[str] = Counter()
    for _, classes in layout.splits.values():
        others += other_files(folder for folders in classes.values() for folder in folders)
    found = survey(Chain(split.paths for split in splits.values()), spec.white_level)
    sentence = passed_over(others, f"in the class folders of {printable(str(root))}")
    return Source(
        description=f"folder:{printable(location)}",
        class_names=tuple(names),
        splits=splits,
        image_size=found.image_size,
        channels=found.channels,
        unlabelled=layout.unlabelled,
        notes=(*layout.notes, *([sentence] if sentence else []), *found.notes),
    )


def _list(root: Folder, classes: Classes, names: list[str], white_level: int) -> FileSplit:
    """Lists the images of the classes that are there, class by class and by path, labelled as in `names`."""
    counts = [0] * len(names)

    def listed() -> Iterator[str]:
        for label, name in enumerate(names):
            images = image_paths(classes.get(name, ()))
            counts[label] = len(images)
            yield from images

    paths = Paths(listed())
    return FileSplit(root.path, paths, np.repeat(np.arange(len(names), dtype=np.int32), counts), white_level)


def image_files(given: Iterable[Path]) -> list[Path]:
    """Returns the files that are named, and the images below the folders that are; warns of files passed over there.

    Raises:
        UserError: for a folder without images.
    """
    files: list[Path] = []
    for path in given:
        if not path.is_dir():
            files.append(path)
            continue
        folder = Folder(str(path))
        found = image_paths([folder])
        sentence = passed_over(other_files([folder]), f"in {printable(str(path))}")
        if not found:
            raise UserError(
                f"there is no image ({READABLE}) in the folder {printable(str(path))}"
                + (f"; {sentence}" if sentence else "")
            )
        if sentence:
            _log.warning("%s", sentence)
        files += map(Path, found)
    return files
