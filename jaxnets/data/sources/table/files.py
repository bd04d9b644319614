"""Images of a table that are files of their own, on a disk or in a bucket."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from jaxtyping import Int32, Int64, UInt8, UInt64

from jaxnets.config import DataConfig
from jaxnets.data.sources.base import Source
from jaxnets.data.sources.bucket import BUCKET, sizes_below
from jaxnets.data.sources.files import FileSplit, survey
from jaxnets.data.sources.names import printable
from jaxnets.data.sources.paths import Paths
from jaxnets.data.sources.scan import Folder, image_paths
from jaxnets.data.sources.split_names import role_of
from jaxnets.data.sources.stored import Stored, StoredSplit, surveyed
from jaxnets.data.sources.table.assemble import assemble, role_code, role_names, roles_of
from jaxnets.data.sources.table.locate import Located, locate, missing_message
from jaxnets.data.sources.table.rows import Rows
from jaxnets.data.sources.table.tree import DiskTree, ListedTree, Tree
from jaxnets.errors import UserError


class FileImages:
    """Files of a disk, called by their paths from the root, and known by what the rows say of these."""

    def __init__(self, root: str, located: Located, white_level: int) -> None:
        self._root, self._names, self._own, self._white_level = root, located.names, located.own, white_level

    @cached_property
    def files(self) -> Int64[np.ndarray, " n"]:
        number = {name: i for i, name in enumerate(sorted({name for name in self._names if name is not None}))}
        return np.array([-1 if name is None else number[name] for name in self._names], np.int64)

    def name(self, row: int) -> str:
        return printable(self._names[row] or "")

    def split(
        self,
        rows: Int64[np.ndarray, " m"],
        labels: Int32[np.ndarray, " m"],
        groups: UInt64[np.ndarray, " m"] | None,
        targets: UInt8[np.ndarray, "m classes"] | None,
    ) -> FileSplit | StoredSplit:
        paths, own = self.paths(rows), Paths(self._own[row] or "" for row in rows.tolist())
        return FileSplit(self._root, paths, labels, self._white_level, groups=groups, targets=targets, own=own)

    def paths(self, rows: Int64[np.ndarray, " m"]) -> list[str]:
        return [os.path.join(self._root, name) for row in rows.tolist() if (name := self._names[row]) is not None]


class ObjectImages(FileImages):
    """Objects of a bucket, called by what the rows say of them."""

    def __init__(self, root: str, located: Located, white_level: int, tree: ListedTree) -> None:
        super().__init__(root, located, white_level)
        self._tree = tree

    def paths(self, rows: Int64[np.ndarray, " m"]) -> list[str]:
        return [BUCKET + path.lstrip("/") for path in super().paths(rows)]

    def split(
        self,
        rows: Int64[np.ndarray, " m"],
        labels: Int32[np.ndarray, " m"],
        groups: UInt64[np.ndarray, " m"] | None,
        targets: UInt8[np.ndarray, "m classes"] | None,
    ) -> FileSplit | StoredSplit:
        stored = Stored(
            files=self.paths(rows),
            file=np.arange(len(rows), dtype=np.int32),
            offset=np.zeros(len(rows), np.int64),
            size=np.array([self._tree.sizes[self._names[row] or ""] for row in rows.tolist()], np.int64),
            names=[printable(self._own[row] or "") for row in rows.tolist()],
            content=None,
        )
        return StoredSplit(stored=stored, labels=labels, white_level=self._white_level, groups=groups, targets=targets)


def source_of_files(
    rows: Rows, cells: Sequence[str], file: str, spec: DataConfig, known: Sequence[str] | None, description: str
) -> Source:
    """Returns the source of a table whose cells are paths.

    Images without a row, in folders beside those with rows whose names are those of a split, become `unlabelled`.

    Args:
        rows: what it says of them.
        cells: of its column of images.
        file: where it lies; paths are relative to its folder, or to `spec.root`; each of them may be in a bucket.
        spec: `root`, `table`, `white_level`.
        known: classes to evaluate on, or None to train.
        description: of the source.

    Raises:
        UserError: as `locate` and `assemble`, and for missing files unless `spec.table.skip_missing`.
    """
    beside = os.path.dirname(_absolute(file))
    root = _absolute(spec.root) if spec.root else beside
    in_bucket = (spec.root or file).startswith(BUCKET)
    if not in_bucket and not os.path.isdir(root):
        raise UserError(f"config.data.root must be a folder, found {printable(root)}, which is none")
    tree: Tree = ListedTree(sizes_below(BUCKET + root.strip("/"))) if in_bucket else DiskTree(root)
    roles, said, notes = roles_of(rows, spec.table, known is not None)
    located = locate(cells, role_names(roles), root, beside, tree, rows.title, rows.place)
    missing = [row for row, name in enumerate(located.names) if name is None]
    if missing:
        message = missing_message(cells, missing, root, tree, rows.title, rows.place)
        if not spec.table.skip_missing or len(missing) == len(cells):
            raise UserError(
                f"{message}: paths are relative to the folder of the table, or to config.data.root"
                + ("" if len(missing) == len(cells) else "; --config.data.table.skip_missing=true leaves such rows out")
            )
        notes.append(f"left out: {message}")
    if not said and known is None and spec.table.split != "":
        roles = _roles_of_folders(located.names, roles, rows.title, notes)
    notes = [*located.notes, *notes]
    if isinstance(tree, ListedTree):
        there = ObjectImages(root, located, spec.white_level, tree)
        source = surveyed(assemble(rows, there, roles, spec.table, known, description))
        return replace(source, notes=(*notes, *source.notes))
    images = FileImages(root, located, spec.white_level)
    source = assemble(rows, images, roles, spec.table, known, description)
    unlabelled = _beside(Folder(root), {name for name in located.names if name is not None})
    notes += [f"passed over {folder}: {len(paths):,} images without a row" for folder, paths in unlabelled.items()]
    found = survey([path for split in source.splits.values() for path in _paths(split)], spec.white_level)
    return replace(
        source,
        image_size=found.image_size,
        channels=found.channels,
        unlabelled={**source.unlabelled, **unlabelled},
        notes=(*notes, *source.notes, *found.notes),
    )


def _absolute(path: str) -> str:
    """Returns a path from the root of all; gs://BUCKET/FOLDER as /BUCKET/FOLDER, so that it is handled as one."""
    if path.startswith(BUCKET):
        return os.path.normpath("/" + path.removeprefix(BUCKET))
    return os.path.abspath(os.path.expanduser(path))


def _roles_of_folders(
    names: Sequence[str | None], roles: Int32[np.ndarray, " n"], title: str, notes: list[str]
) -> Int32[np.ndarray, " n"]:
    """Returns each row's split by the folder of its file, where these speak of train and of another split."""
    tops = [None if name is None else name.partition("/")[0] if "/" in name else "" for name in names]
    meant = {top: role_of(top) for top in set(tops) if top is not None}
    if "train" not in meant.values() or not {"test", "validation"} & set(meant.values()):
        return roles
    silent = [top for top, role in meant.items() if role is None]
    if silent:
        listed = ", ".join(sorted(printable(top) or "no folder" for top in meant))
        raise UserError(
            f"{title} has images in {listed}, some of which are called as splits are and some not: add a column "
            f"'split' with train, val or test; --config.data.table.split='' takes all of them for training"
        )
    notes.append(
        f"splits of {title}: " + ", ".join(f"{role} from {printable(top)}" for top, role in sorted(meant.items()))
    )
    code = {top: role_code(str(role)) for top, role in meant.items()}
    return np.array([roles[row] if top is None else code[top] for row, top in enumerate(tops)], np.int32)


def _paths(split: object) -> Sequence[str]:
    assert isinstance(split, FileSplit)
    return split.paths


def _beside(root: Folder, listed: set[str]) -> dict[str, list[str]]:
    """Returns the images of folders that are called as a split and none of whose images has a row."""
    unlabelled = {}
    for folder in root.folders:
        if role_of(folder.name) in ("test", "validation", "unlabelled"):
            paths = image_paths([folder])
            if paths and listed.isdisjoint(path[len(root.path) :].lstrip("/") for path in paths):
                unlabelled[printable(folder.name)] = paths
    return unlabelled
