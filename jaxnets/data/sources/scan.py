"""What lies below a folder: images, other files and folders, each folder read once."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from jaxnets.data import dicom
from jaxnets.data.decode import SUFFIXES
from jaxnets.data.sources.names import printable
from jaxnets.errors import UserError

# What systems and programs leave in folders; in lower case.
_JUNK_FOLDERS = frozenset(
    {
        "@eadir", "#recycle", "@recycle", "@tmp", "#snapshot", "$recycle.bin", "system volume information",
        "lost+found", "__macosx", "__pycache__",
    }
)  # fmt: skip
_JUNK_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "dicomdir"})
_DICOM = "DICOM"  # in place of the suffix of a file that is one, where they cannot be read
_COUNTED = 6  # suffixes that a sentence names
_IMAGES_TOO = (".avif", ".heic", ".heif", ".jp2", ".jxl", ".ppm", ".pgm", ".dcm", ".svg", "")


@dataclass(frozen=True)
class Folder:
    """A folder, read when it is first asked for something; hidden entries and what systems leave are not there."""

    path: str
    above: tuple[tuple[int, int], ...] = field(default=(), repr=False)  # device and inode of the folders that it is in

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    @property
    def images(self) -> list[str]:
        """Names of the image files directly in it, in no order."""
        return self._entries[0]

    @property
    def others(self) -> Counter[str]:
        """How many files of each other suffix lie directly in it."""
        return self._entries[1]

    @property
    def folders(self) -> list["Folder"]:
        """The folders in it, by name. A link to a folder that it lies in is none: it would go round for ever."""
        return self._entries[2]

    @property
    def broken(self) -> list[str]:
        """Names of the links in it that lead nowhere."""
        return self._entries[3]

    @cached_property
    def has_images(self) -> bool:
        """Whether there is an image in it, however deep."""
        return bool(self.images) or any(folder.has_images for folder in self.folders)

    @cached_property
    def with_images(self) -> list["Folder"]:
        """The folders in it that have images."""
        return [folder for folder in self.folders if folder.has_images]

    def walk(self) -> Iterator["Folder"]:
        """Yields it and all folders below it; one that is linked to twice comes once."""
        seen: set[tuple[int, int]] = set()
        waiting = [self]
        while waiting:
            folder = waiting.pop()
            if folder._identity not in seen:
                seen.add(folder._identity)
                yield folder
                waiting += folder.folders

    @cached_property
    def _identity(self) -> tuple[int, int]:
        status = os.stat(self.path)
        return status.st_dev, status.st_ino

    @cached_property
    def _entries(self) -> tuple[list[str], Counter[str], list["Folder"], list[str]]:
        images: list[str] = []
        others: Counter[str] = Counter()
        folders: list[Folder] = []
        broken: list[str] = []
        try:
            above = (*self.above, self._identity)
            with os.scandir(self.path) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith("."):
                        continue
                    try:
                        is_folder = entry.is_dir()
                        gone = not is_folder and entry.is_symlink() and not os.path.exists(entry.path)
                    except OSError:  # a link to itself
                        is_folder, gone = False, True
                    suffix = os.path.splitext(name)[1].lower()
                    if gone and suffix not in SUFFIXES:  # an image that is gone is found, and named, when it is read
                        broken.append(name)
                    elif is_folder:
                        if name.lower() in _JUNK_FOLDERS:
                            continue
                        folder = Folder(entry.path, above)
                        if not entry.is_symlink() or folder._identity not in above:
                            folders.append(folder)
                    elif suffix in SUFFIXES and (suffix not in dicom.SUFFIXES or dicom.is_readable()):
                        images.append(name)
                    elif name.lower() in _JUNK_FILES:
                        continue
                    elif dicom.may_be_named(suffix) and dicom.is_dicom(Path(entry.path)):
                        if dicom.is_readable():
                            images.append(name)
                        else:
                            others[_DICOM] += 1
                    else:
                        others[suffix] += 1
        except OSError as error:
            raise UserError(
                f"the folder {printable(self.path)} cannot be read ({error.strerror}): mend its permissions, or leave "
                f"it out"
            ) from error
        return images, others, sorted(folders, key=lambda folder: folder.name), broken


def image_paths(folders: Iterable[Folder]) -> list[str]:
    """Returns the paths of all images below the folders, sorted."""
    walked = (below for folder in folders for below in folder.walk())
    return sorted(os.path.join(below.path, name) for below in walked for name in below.images)


def other_files(folders: Iterable[Folder]) -> Counter[str]:
    """Returns how many files of each suffix lie below the folders and are not taken for images."""
    return sum((below.others for folder in folders for below in folder.walk()), Counter())


def counted(others: Counter[str]) -> str:
    """Returns "12 of .tif, 3 without a suffix", the most frequent first; an empty string for none."""
    ordered = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    listed = [_count(suffix, count) for suffix, count in ordered[:_COUNTED]]
    rest = sum(count for _, count in ordered[_COUNTED:])
    return ", ".join(listed) + (f", {rest:,} more" if rest else "")


def _count(suffix: str, count: int) -> str:
    if suffix == _DICOM:
        return f"{count:,} DICOM files (to read such files: {dicom.REMEDY})"
    return f"{count:,} of {printable(suffix)}" if suffix else f"{count:,} without a suffix"


def passed_over(others: Counter[str], where: str) -> str | None:
    """Returns a sentence on files that were not taken for images, and what to do where they may well be some."""
    if not others:
        return None
    images = any(suffix in _IMAGES_TOO for suffix in others)
    plain = ", ".join(suffix for suffix in SUFFIXES if suffix not in dicom.SUFFIXES)
    remedy = f"; convert those that are images to {plain}" if images else ""
    return f"passed over {where}: {counted(others)}{remedy}"
