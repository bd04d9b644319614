"""From rows and images to a source: splits, duplicates, contradictions, and what has no label."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8, UInt64

from jaxnets.config import TableConfig
from jaxnets.data.sources.base import Grouped, Source, Split
from jaxnets.data.sources.names import hashes
from jaxnets.data.sources.split_names import Role, role_of
from jaxnets.data.sources.table.checks import (
    refuse_unlearnable,
    say_odd_labels,
    say_torn_groups,
    without_duplicates,
)
from jaxnets.data.sources.table.labels import read_labels, without_label
from jaxnets.data.sources.table.rows import NO_VALUE, Rows
from jaxnets.errors import UserError, quoted

_ROLES = ("train", "test", "validation", "unlabelled", "all")
_CODE = {role: code for code, role in enumerate(_ROLES)}
_TRUE = {"1": True, "true": True, "1.0": True, "yes": True, "0": False, "false": False, "0.0": False, "no": False}
_NAMED = 3  # rows that a message names


class Images(Protocol):
    """The images of a table's rows."""

    @property
    def files(self) -> Int64[np.ndarray, " n"] | None:
        """A number of each row's file, the same for one file, in the order that splits have; −1 where it is missing.

        None: all differ.
        """
        ...

    def name(self, row: int) -> str: ...

    def split(
        self,
        rows: Int64[np.ndarray, " m"],
        labels: Int32[np.ndarray, " m"],
        groups: UInt64[np.ndarray, " m"] | None,
        targets: UInt8[np.ndarray, "m classes"] | None,
    ) -> Split: ...

    def paths(self, rows: Int64[np.ndarray, " m"]) -> Sequence[str]:
        """Returns the paths of images that are files, and nothing of others."""
        ...


class Roles(NamedTuple):
    codes: Int32[np.ndarray, " n"]  # of each row, in the order train, test, validation, unlabelled, all
    said: bool  # by a column or by files, and not for want of both
    notes: list[str]


def roles_of(rows: Rows, spec: TableConfig, known: bool) -> Roles:
    """Returns the split of each row: what the column says, else what its file does, else "train" or "all".

    Raises:
        UserError: for a value that names no split, and where column and files contradict each other, unless the config
            names the column.
    """
    whole = np.full(len(rows), _CODE["all" if known else "train"], np.int32)
    if rows.part is not None:
        whole = np.array([_CODE[value] for value in rows.part.values], np.int32)[rows.part.codes]
    if rows.split is None:
        return Roles(whole, rows.part is not None, [])
    column, title = rows.columns.split, rows.title
    codes = np.zeros(len(rows.split.values), np.int32)
    for number, value in enumerate(rows.split.values):
        role = _role(value, rows.columns.flag)
        if role is None:
            if not rows.columns.surely_split:
                values = ", ".join(map(quoted, rows.split.values[:_NAMED]))
                note = f"the column {column!r} of {title} says no split: it has {values}"
                return Roles(whole, rows.part is not None, [note])
            row = int(np.flatnonzero(rows.split.codes == number)[0])
            raise UserError(
                f"{title}, {rows.place(row)}: the column {quoted(column or '')} says {quoted(value)}, which is no "
                f"split: expected train, val or test (config.data.table.split names another column, or '' for none)"
            )
        codes[number] = _CODE[role]
    own = codes[rows.split.codes]
    if rows.part is not None and len(rows.part.values) > 1 and not spec.split:
        _refuse_contradiction(rows, own, whole)
    return Roles(own, True, [])


def _refuse_contradiction(rows: Rows, own: Int32[np.ndarray, " n"], part: Int32[np.ndarray, " n"]) -> None:
    """Refuses rows whose column says another split than their file; validation may be a part of train's."""
    wrong = np.flatnonzero((own != part) & ~((own == _CODE["validation"]) & (part == _CODE["train"])))
    if len(wrong):
        row = int(wrong[0])
        raise UserError(
            f"{rows.title} contradicts itself: {rows.place(row)} is in the {_ROLES[part[row]]} split by its file, and "
            f"in {_ROLES[own[row]]} by the column {quoted(rows.columns.split or '')} ({len(wrong):,} such rows): "
            f"config.data.table.split='' follows the files, config.data.table.split={quoted(rows.columns.split or '')} "
            f"the column"
        )


def _role(value: str, flag: Role | None) -> Role | None:
    if flag is None:
        return role_of(value)
    truth = _TRUE.get(value.strip().lower())
    if truth is None:
        return None
    other: Role = "test" if flag == "train" else "train"
    return flag if truth else other


def role_code(role: str) -> int:
    return _CODE[role]


def role_names(codes: Int32[np.ndarray, " n"]) -> list[str]:
    return [_ROLES[code] for code in codes.tolist()]


def refuse_missing(rows: Rows, missing: Bool[np.ndarray, " n"], what: str, spec: TableConfig) -> list[str]:
    """Refuses rows without an image, or returns the note that they are left out, as the config says."""
    absent = np.flatnonzero(missing)
    if not len(absent):
        return []
    named = ", ".join(rows.place(row) for row in absent[:_NAMED])
    more = f" and {len(absent) - _NAMED:,} more" if len(absent) > _NAMED else ""
    message = f"the image of {len(absent):,} of {len(rows):,} rows of {rows.title} {what} ({named}{more})"
    if not spec.skip_missing or len(absent) == len(rows):
        raise UserError(f"{message}: mend them, or leave them out with --config.data.table.skip_missing=true")
    return [f"left out: {message}"]


def assemble(
    rows: Rows,
    images: Images,
    roles: Int32[np.ndarray, " n"],
    spec: TableConfig,
    known: Sequence[str] | None,
    description: str,
) -> Source:
    """Returns the source that rows and their images make; its size and channels are for the caller to find out.

    Rows that say the same of one file count once, rows without one are left out. A split none of whose rows has a label
    becomes `unlabelled`, with the paths of its images where they are files. Where there is a validation split and no
    test split, it is the test split.

    Raises:
        UserError: if rows contradict each other, rows in a split with labels have none (unless `spec.skip_missing`), a
            label is tested that is not trained, or there is nothing to train on.
    """
    files = images.files
    notes: list[str] = []
    kept = np.ones(len(rows), bool) if files is None else files >= 0
    empty = without_label(rows)
    roles = _unlabelled_splits(roles, kept, empty)
    labels = read_labels(rows, kept & (roles != _CODE["unlabelled"]), spec.separator, known)
    if labels.targets is None:
        kept = _with_labels(rows, kept, roles, empty, spec, notes)
    groups = _groups(rows, images, notes)
    if files is not None:
        kept = without_duplicates(rows, images.name, files, labels, roles, groups, kept, _ROLES, notes)
    splits: dict[str, Split] = {}
    unlabelled: dict[str, Sequence[str]] = {}
    chosen = {role: np.flatnonzero(kept & (roles == code)) for role, code in _CODE.items()}
    if files is not None:  # by their names, so that the order of a table's rows is of no account
        chosen = {role: members[np.argsort(files[members], kind="stable")] for role, members in chosen.items()}
    for role, members in chosen.items():
        if not len(members):
            continue
        if role == "unlabelled":
            unlabelled[rows.title] = images.paths(members)
            notes.append(f"passed over {len(members):,} images of {rows.title} without a label")
            continue
        targets = None if labels.targets is None else labels.targets[members]
        splits[role] = images.split(
            members, labels.labels[members], None if groups is None else groups[members], targets
        )
    if known is None:
        refuse_unlearnable(rows, labels, chosen)
        say_odd_labels(rows, labels, chosen["train"], notes)
    say_torn_groups(rows, groups, chosen, notes)
    if known is None and "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
        notes.append(f"the validation split of {rows.title} is the test split: it has no other")
    if not splits:
        raise UserError(f"{rows.title} has no images with a label")
    return Source(
        description=description,
        class_names=labels.names,
        splits=splits,
        image_size=None,
        channels=3,
        unlabelled=unlabelled,
        notes=(*([rows.columns.note] if rows.columns.note else []), *labels.notes, *notes),
        grouped=Grouped(
            column=None if rows.group is None else rows.columns.group,
            values=() if rows.group is None else tuple(dict.fromkeys(value.strip() for value in rows.group.values)),
            columns=rows.columns.names,
        ),
    )


def _groups(rows: Rows, images: Images, notes: list[str]) -> UInt64[np.ndarray, " n"] | None:
    """Returns a hash of each row's group; a row without one is a group of its own."""
    if rows.group is None:
        return None
    values = [value.strip() for value in rows.group.values]
    groups = hashes(value.encode("utf-8", "surrogateescape") for value in values)[rows.group.codes]
    alone = np.flatnonzero(np.array([value.lower() in NO_VALUE for value in values], bool)[rows.group.codes])
    if len(alone):
        groups[alone] = hashes(f"\0{images.name(row)}".encode() for row in alone.tolist())
        notes.append(f"{len(alone):,} rows of {rows.title} have no group, and each is one of its own")
    return groups


def _unlabelled_splits(
    roles: Int32[np.ndarray, " n"], kept: Bool[np.ndarray, " n"], empty: Bool[np.ndarray, " n"]
) -> Int32[np.ndarray, " n"]:
    """Returns the splits of the rows; a test or validation split without any label is none, but unlabelled."""
    roles = roles.copy()
    for role in ("test", "validation"):
        here = kept & (roles == _CODE[role])
        if empty[here].all():
            roles[here] = _CODE["unlabelled"]
    return roles


def _with_labels(
    rows: Rows,
    kept: Bool[np.ndarray, " n"],
    roles: Int32[np.ndarray, " n"],
    empty: Bool[np.ndarray, " n"],
    spec: TableConfig,
    notes: list[str],
) -> Bool[np.ndarray, " n"]:
    """Returns the rows that are kept, those without a label left out; refuses such unless the config says so."""
    wanted = kept & (roles != _CODE["unlabelled"])
    without = np.flatnonzero(wanted & empty)
    if not len(without):
        return kept
    named = ", ".join(rows.place(row) for row in without[:_NAMED])
    more = f" and {len(without) - _NAMED:,} more" if len(without) > _NAMED else ""
    message = f"{len(without):,} of {wanted.sum():,} rows of {rows.title} have no label ({named}{more})"
    if not spec.skip_missing or len(without) == wanted.sum():
        raise UserError(f"{message}: give them one, or leave them out with --config.data.table.skip_missing=true")
    notes.append(f"left out: {message}")
    return kept & ~(wanted & empty)
