"""Images of a table that are files of their own."""

import os
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Int32, Int64, UInt8, UInt64

from jaxnets.config import DataConfig
from jaxnets.data.sources.base import Source
from jaxnets.data.sources.files import FileSplit, survey
from jaxnets.data.sources.names import printable
from jaxnets.data.sources.scan import Folder, image_paths
from jaxnets.data.sources.split_names import role_of, split_roles
from jaxnets.data.sources.table.assemble import assemble, role_code, role_names, roles_of
from jaxnets.data.sources.table.locate import locate, missing_message
from jaxnets.data.sources.table.rows import Rows
from jaxnets.errors import UserError


class FileImages:
    def __init__(self, root: str, paths: Sequence[str | None], white_level: int) -> None:
        self._root, self._paths, self._white_level = root, paths, white_level

    @cached_property
    def files(self) -> Int64[np.ndarray, " n"]:
        # Numbered by name, so that the order of the rows is of no account.
        number = {path: i for i, path in enumerate(sorted({path for path in self._paths if path is not None}))}
        return np.array([-1 if path is None else number[path] for path in self._paths], np.int64)

    def name(self, row: int) -> str:
        return printable(os.path.relpath(self._paths[row] or "", self._root))

    def split(
        self,
        rows: Int64[np.ndarray, " m"],
        labels: Int32[np.ndarray, " m"],
        groups: UInt64[np.ndarray, " m"] | None,
        targets: UInt8[np.ndarray, "m classes"] | None,
    ) -> FileSplit:
        order = np.argsort(self.files[rows], kind="stable")
        return FileSplit(
            self._root,
            self.paths(rows[order]),
            labels[order],
            self._white_level,
            groups=None if groups is None else groups[order],
            targets=None if targets is None else targets[order],
        )

    def paths(self, rows: Int64[np.ndarray, " m"]) -> list[str]:
        return [path for row in rows.tolist() if (path := self._paths[row]) is not None]


def source_of_files(
    rows: Rows, cells: Sequence[str], file: str, spec: DataConfig, known: Sequence[str] | None, description: str
) -> Source:
    """Returns the source of a table whose cells are paths.

    Images without a row, in folders beside those with rows whose names are those of a split, become `unlabelled`.

    Args:
        rows: what it says of them.
        cells: of its column of images.
        file: where it lies; paths are relative to its folder, or to `spec.root`.
        spec: `root`, `table`, `white_level`.
        known: classes to evaluate on, or None to train.
        description: of the source.

    Raises:
        UserError: as `locate` and `assemble`, and for missing files unless `spec.table.skip_missing`.
    """
    beside = os.path.dirname(os.path.abspath(file))
    root = os.path.abspath(os.path.expanduser(spec.root)) if spec.root else beside
    if not os.path.isdir(root):
        raise UserError(f"config.data.root must be a folder, found {printable(root)}, which is none")
    roles, notes = roles_of(rows, known is not None)
    located = locate(cells, role_names(roles), root, beside, rows.title, rows.place)
    missing = [row for row, path in enumerate(located.paths) if path is None]
    if missing:
        message = missing_message(cells, missing, root, rows.title, rows.place)
        if not spec.table.skip_missing or len(missing) == len(cells):
            raise UserError(
                f"{message}: paths are relative to the folder of the table, or to config.data.root"
                + ("" if len(missing) == len(cells) else "; --config.data.table.skip_missing=true leaves such rows out")
            )
        notes.append(f"left out: {message}")
    if rows.split is None and known is None:
        roles = _roles_of_folders(located.paths, root, roles, rows.title, notes)
    images = FileImages(root, located.paths, spec.white_level)
    source = assemble(rows, images, roles, spec.table, known, description)
    listed = {path for path in located.paths if path is not None}
    unlabelled = _beside(Folder(root), listed)
    found = survey([path for split in source.splits.values() for path in _paths(split)], spec.white_level)
    notes += [f"passed over {folder}: {len(paths):,} images without a row" for folder, paths in unlabelled.items()]
    return Source(
        description=description,
        class_names=source.class_names,
        splits=source.splits,
        image_size=found.image_size,
        channels=found.channels,
        unlabelled={**source.unlabelled, **unlabelled},
        notes=(*located.notes, *source.notes, *notes, *found.notes),
    )


def _roles_of_folders(
    paths: Sequence[str | None], root: str, roles: Int32[np.ndarray, " n"], title: str, notes: list[str]
) -> Int32[np.ndarray, " n"]:
    """Returns each row's split by the folder of its file, where all lie in folders called train, test or val."""
    tops = [None if path is None else path[len(root) :].lstrip("/").partition("/")[0] for path in paths]
    names = {top for top, path in zip(tops, paths, strict=True) if top is not None}
    meant = {name: role for role, members in split_roles(names, title).items() for name in members}
    if "train" not in meant.values() or len(set(meant.values())) < 2 or meant.keys() != names:
        return roles
    notes.append(f"splits of {title}, by folder: " + ", ".join(f"{meant[name]} from {name}" for name in sorted(names)))
    code = {name: role_code(role) for name, role in meant.items()}
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
            if paths and listed.isdisjoint(paths):
                unlabelled[printable(folder.name)] = paths
    return unlabelled
