"""Folders of classes in tar archives, understood as folders on a disk are."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from jaxnets.config import DataConfig
from jaxnets.data.sources.base import Source
from jaxnets.data.sources.layout import read_labelled, read_layout
from jaxnets.data.sources.names import printable
from jaxnets.data.sources.scan import Folder, image_paths
from jaxnets.data.sources.stored import Stored, StoredSplit
from jaxnets.data.sources.tar_index import Members
from jaxnets.errors import UserError, quoted


@dataclass(frozen=True)
class _ArchiveFolder(Folder):
    """A folder in archives."""

    inside: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)  # name → the same, or None: file

    @cached_property
    def _identity(self) -> tuple[int, int]:
        return id(self.inside), 0

    @cached_property
    def _entries(self) -> tuple[list[str], Counter[str], list[Folder], list[str]]:
        images = [name for name, inside in self.inside.items() if inside is None]
        folders: list[Folder] = [
            _ArchiveFolder(os.path.join(self.path, name), inside=inside)
            for name, inside in sorted(self.inside.items())
            if inside is not None
        ]
        return images, Counter(), folders, []


def source_of_folders(
    shards: Sequence[str],
    titles: Sequence[str],
    members: Sequence[Members],
    roles: Sequence[str],
    spec: DataConfig,
    known: Sequence[str] | None,
    description: str,
) -> Source:
    """Returns the source of archives that hold class folders; one archive's folder goes on in the next.

    Args:
        shards: their paths, `titles` what they are called, `members` what lies in them, `roles` which split each is.
        spec: `white_level`.
        known: classes to evaluate on, or None to train.
        description: of the source.

    Raises:
        UserError: as `folder:`, and if two archives have a file of one name.
    """
    divided = len(set(roles)) > 1
    tree: dict[str, Any] = {}
    where: dict[str, tuple[int, int]] = {}  # path → archive, and number in it
    root = description
    for shard, each in enumerate(members):
        for number, (name, text) in enumerate(zip(each.names, each.texts, strict=True)):
            if text is not None:
                continue
            parts = [part for part in (roles[shard] if divided else "", *name.split("/")) if part not in ("", ".")]
            path = "/".join((root, *parts))
            if path in where and where[path][0] != shard:
                raise UserError(
                    f"{titles[where[path][0]]} and {titles[shard]} both have {quoted(name)}: which is meant cannot be "
                    f"told; rename one, or give one archive"
                )
            where[path] = shard, number  # within one archive the last counts, as for tar
            folder = tree
            for part in parts[:-1]:
                if folder.get(part) is None:
                    folder[part] = {}
                folder = folder[part]
            folder.setdefault(parts[-1], None)
    top = _ArchiveFolder(root, inside=tree)
    layout = read_layout(top) if known is None else read_labelled(top, known)
    names = sorted(layout.splits["train"][1]) if known is None else list(known)
    splits = {}
    for split, (_, classes) in layout.splits.items():
        paths: list[str] = []
        counts = []
        for name in names:
            images = image_paths(classes.get(name, ()))
            paths += images
            counts.append(len(images))
        places = [where[path] for path in paths]
        stored = Stored(
            files=shards,
            file=np.array([shard for shard, _ in places], np.int32),
            offset=np.array([members[shard].offset[number] for shard, number in places], np.int64),
            size=np.array([members[shard].size[number] for shard, number in places], np.int64),
            names=[printable(members[shard].names[number]) for shard, number in places],
            content=None,
        )
        labels = np.repeat(np.arange(len(names), dtype=np.int32), counts)
        splits[split] = StoredSplit(stored=stored, labels=labels, white_level=spec.white_level)
    return Source(
        description=description,
        class_names=tuple(names),
        splits=splits,
        image_size=None,
        channels=3,
        notes=tuple(layout.notes),
    )
