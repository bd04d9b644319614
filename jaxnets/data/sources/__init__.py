"""Sources of labelled images, opened by the name that `config.data.source` gives.

A new kind is a file with its opener, a row in the table here, and a test.
"""

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from jaxnets.config import DataConfig
from jaxnets.data.sources.base import (
    ArraySplit,
    Canvases,
    CorruptImage,
    Source,
    Split,
    Subset,
    classes_by_rarity,
    labels_of,
)
from jaxnets.data.sources.bucket import BUCKET
from jaxnets.data.split import hold_out
from jaxnets.errors import UserError, nearest

__all__ = [
    "ArraySplit",
    "Canvases",
    "CorruptImage",
    "Source",
    "Split",
    "Subset",
    "classes_by_rarity",
    "labels_of",
    "open_labelled",
    "open_source",
    "open_undivided",
]

# (what follows the colon, the config's group, the classes to evaluate on or None to train) -> Source. To train it has
# "train" at least. To evaluate it may have any splits and fewer classes; the classes are matched by name here.
Opener = Callable[[str, DataConfig, Sequence[str] | None], Source]


@dataclass(frozen=True, kw_only=True)
class _Kind:
    form: str  # as it is written
    opener: str  # MODULE:FUNCTION; a leaf that is imported when it is asked for: TFDS alone takes half a second
    # Of data.table, and data.root, which it reads; None: what they say was read before.
    keys: frozenset[str] | None = frozenset()

    def load(self) -> Opener:
        module, function = self.opener.split(":")
        opener: Any = getattr(importlib.import_module(f"{__name__}.{module}"), function)
        return opener


_ROWS = frozenset({"label", "labels", "separator", "split", "group", "skip_missing"})
_RECORDS = frozenset({"image", "label", "label_offset", "classes", "separator", "skip_missing"})
_KINDS = {
    "digits": _Kind(form="digits", opener="digits:open_digits"),
    "idx": _Kind(form="idx:DIR", opener="idx:open_idx"),
    "folder": _Kind(form="folder:DIR", opener="folder:open_folder"),
    "list": _Kind(form="list:FILE", opener="list_file:open_list"),
    "csv": _Kind(form="csv:FILE", opener="csv_file:open_csv", keys=_ROWS | {"image", "root"}),
    "parquet": _Kind(form="parquet:FILE", opener="parquet_file:open_parquet", keys=_ROWS | {"image", "root"}),
    "tar": _Kind(form="tar:GLOB", opener="tar_shards:open_tar", keys=_ROWS),
    "hf": _Kind(form="hf:NAME", opener="hugging_face:open_hf", keys=_ROWS | {"image"}),
    "tfrecord": _Kind(form="tfrecord:GLOB", opener="tfrecord_shards:open_tfrecord", keys=_RECORDS),
    "prepared": _Kind(form="prepared:DIR", opener="prepared:open_prepared", keys=None),
    "tfds": _Kind(form="tfds:NAME", opener="tfds:open_tfds"),
}


def with_absolute_paths(spec: DataConfig) -> DataConfig:
    """Returns the spec with paths that mean the same from any working directory, as a run directory wants them."""
    kind, colon, rest = spec.source.partition(":")
    given = kind in _KINDS and _KINDS[kind].form.endswith((":DIR", ":FILE", ":GLOB")) and not rest.startswith(BUCKET)
    if rest and (given or (kind == "hf" and _is_local(rest))):
        rest = _absolute(rest)
    root = spec.root if (spec.root or "").startswith(BUCKET) else spec.root and _absolute(spec.root)
    classes = spec.table.classes
    if classes is not None and not classes.startswith(BUCKET):
        classes = _absolute(classes)
    table = replace(spec.table, classes=classes)
    directory = spec.directory and _absolute(spec.directory)
    return replace(spec, source=kind + colon + rest, directory=directory, root=root, table=table)


def _is_local(name: str) -> bool:
    """Whether what may be a name on the Hub is a path: it is written as one, or there is such a thing."""
    return name.startswith(("/", "~", ".")) or os.path.exists(name)


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def open_source(spec: DataConfig, seed: int) -> Source:
    """Opens the data set that `spec.source` names, to train on it.

    Args:
        spec: `source` says which; `test_share` is what becomes the test split of a data set that has none.
        seed: of such a test split.

    Returns:
        The source, with a "train" and a "test" split at least. Images that cannot be decoded are found when they are
        read, not here.

    Raises:
        UserError: if the name is unknown or incomplete, or the data set is missing or not laid out as its kind needs.
    """
    source = open_undivided(spec)
    if "test" in source.splits:
        return source
    train = source.splits["train"]
    strata = classes_by_rarity(labels_of(train))
    kept, chosen = hold_out(train.identities, strata, spec.test_share, seed, "test", train.groups)
    splits = {**source.splits, "train": Subset(train, kept), "test": Subset(train, chosen)}
    of = "each class" if train.groups is None else "the groups"
    note = f"test: {len(chosen):,} images drawn from train, about {spec.test_share:.0%} of {of}"
    return replace(source, splits=splits, notes=(*source.notes, note))


def open_undivided(spec: DataConfig) -> Source:
    """Opens the data set that `spec.source` names with the splits that it has itself, "train" among them.

    Raises:
        UserError: as `open_source`, and for a key of a table that such a data set has no use for.
    """
    opener, location = _find(spec.source)
    _refuse_unread(spec)
    return opener(location, spec, None)


def _refuse_unread(spec: DataConfig) -> None:
    """Refuses keys that the kind of source does not read: a group, say, that would not be kept together."""
    kind = _KINDS[spec.source.partition(":")[0]]
    table = {key.name: (getattr(spec.table, key.name), key.default) for key in fields(spec.table)}
    given = {key for key, (value, default) in table.items() if value not in (default, "")}
    given |= {"root"} if spec.root else set()
    if kind.keys is not None and (unread := sorted(given - kind.keys)):
        name = "root" if unread[0] == "root" else f"table.{unread[0]}"
        readers = ", ".join(each.form for each in _KINDS.values() if each.keys and unread[0] in each.keys)
        raise UserError(f"config.data.{name} is a key of {readers}, and {kind.form} does not read it: leave it out")


def open_labelled(spec: DataConfig, class_names: Sequence[str]) -> Source:
    """Opens the data set that `spec.source` names, to evaluate a model of these classes on it.

    Nothing is held out: a data set without splits has the one split "all".

    Returns:
        The source, with the splits that it has. Its class names are the model's, its labels count them, and what it has
        no images of is in the notes.

    Raises:
        UserError: as `open_source`, and if it has a class that is not among the model's.
    """
    opener, location = _find(spec.source)
    source = opener(location, spec, class_names)
    if source.class_names != tuple(class_names):
        source = _match(source, class_names)
    seen = np.zeros(len(class_names), bool)
    for split in source.splits.values():
        if split.targets is None:
            seen[split.labels] = True
        else:
            seen |= split.targets.any(0)
    if seen.all():
        return source
    missing = [name for name, present in zip(class_names, seen, strict=True) if not present]
    listed = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
    note = f"{source.description} has no images of {listed}"
    return replace(source, notes=(*source.notes, note))


def _match(source: Source, class_names: Sequence[str]) -> Source:
    """Returns the source with the labels of the given class names."""
    position = {name: label for label, name in enumerate(class_names)}
    unknown = [name for name in source.class_names if name not in position]
    if unknown:
        raise UserError(
            f"{source.description} has the class {unknown[0]!r}{nearest(unknown[0], class_names)}"
            + (f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else "")
            + f", which the model does not know; its classes are {', '.join(class_names[:10])}"
            + (", …" if len(class_names) > 10 else "")
        )
    class_of = np.array([position[name] for name in source.class_names], np.int32)
    splits = {
        name: Subset(split, np.arange(len(split)), class_of, len(class_names)) for name, split in source.splits.items()
    }
    return replace(source, class_names=tuple(class_names), splits=splits)


def _find(source: str) -> tuple[Opener, str]:
    """Returns the opener and what follows the colon."""
    kind, colon, rest = source.partition(":")
    if kind not in _KINDS:
        if kind.startswith(("/", "~", ".")) or (colon == "" and "/" in kind):
            raise UserError(f"config.data.source {source!r} looks like a path: write folder:{source}")
        valid = ", ".join(row.form for row in _KINDS.values())
        meant = nearest(kind, _KINDS if colon else ["digits"])
        raise UserError(f"config.data.source must be one of {valid}, found {source!r}{meant}")
    row = _KINDS[kind]
    if row.form == kind and colon:
        raise UserError(f"config.data.source {kind} takes nothing after it, found {source!r}")
    if row.form != kind and not rest.strip():
        raise UserError(f"config.data.source must be {row.form}, found {source!r}")
    return row.load(), rest
