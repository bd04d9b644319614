"""Where the files of a table lie: folders of a disk, or of a bucket, which is listed whole."""

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from jaxnets.data.decode import SUFFIXES
from jaxnets.data.sources.scan import Folder


class Tree(Protocol):
    """Files below a root; folders and files are named by their paths from it, with slashes, "" for itself."""

    def names(self, folder: str) -> Collection[str]:
        """Returns the names of what lies directly in a folder, none where there is no such folder."""
        ...

    def is_folder(self, path: str) -> bool: ...

    def walk(self) -> Iterator[tuple[str, Collection[str]]]:
        """Yields each folder, with the names of the images directly in it."""
        ...


@dataclass(frozen=True)
class DiskTree:
    root: str

    def names(self, folder: str) -> Collection[str]:
        try:
            return frozenset(os.listdir(os.path.join(self.root, folder)))
        except OSError:
            return frozenset()

    def is_folder(self, path: str) -> bool:
        return os.path.isdir(os.path.join(self.root, path))

    def walk(self) -> Iterator[tuple[str, Collection[str]]]:
        for folder in Folder(self.root).walk():
            yield folder.path[len(self.root) :].strip("/"), folder.images


@dataclass(frozen=True)
class ListedTree:
    """Objects of a bucket, which has no folders but in their names."""

    sizes: Mapping[str, int]  # path from the root → bytes

    @cached_property
    def _folders(self) -> Mapping[str, set[str]]:
        folders: dict[str, set[str]] = defaultdict(set)
        for path in self.sizes:
            folder, _, name = path.rpartition("/")
            folders[folder].add(name)
        return folders

    def names(self, folder: str) -> Collection[str]:
        return self._folders.get(folder, frozenset())

    def is_folder(self, path: str) -> bool:
        return path not in self.sizes

    def walk(self) -> Iterator[tuple[str, Collection[str]]]:
        for folder, names in sorted(self._folders.items()):
            yield folder, [name for name in names if os.path.splitext(name)[1].lower() in SUFFIXES]
