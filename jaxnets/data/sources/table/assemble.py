"""From rows and images to a source: splits, duplicates, contradictions, and what has no label."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8, UInt64

from jaxnets.config import TableConfig
from jaxnets.data.sources.base import Source, Split
from jaxnets.data.sources.names import hashes
from jaxnets.data.sources.split_names import Role, role_of
from jaxnets.data.sources.table.labels import Labels, read_labels
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
        """A number of each row's file, −1 where it is missing; rows of one file have one number. None: all differ."""
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


def roles_of(rows: Rows, known: bool) -> tuple[Int32[np.ndarray, " n"], list[str]]:
    """Returns the split of each row, a number in the order train, test, validation, unlabelled, all; and notes.

    Raises:
        UserError: for a value that names no split.
    """
    whole = np.full(len(rows), _CODE["all" if known else "train"], np.int32)
    if rows.split is None:
        return whole, []
    column, title = rows.columns.split, rows.title
    codes = np.zeros(len(rows.split.values), np.int32)
    for number, value in enumerate(rows.split.values):
        role = _role(value, rows.columns.flag)
        if role is None:
            if not rows.columns.surely_split:
                values = ", ".join(map(quoted, rows.split.values[:_NAMED]))
                return whole, [f"the column {column!r} of {title} says no split: it has {values}"]
            row = int(np.flatnonzero(rows.split.codes == number)[0])
            raise UserError(
                f"{title}, {rows.place(row)}: the column {quoted(column or '')} says {quoted(value)}, which is no "
                f"split: expected train, val or test (config.data.table.split names another column, or '' for none)"
            )
        codes[number] = _CODE[role]
    return codes[rows.split.codes], []


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
    labels = read_labels(rows, kept & (roles != _CODE["unlabelled"]), spec.separator, known)
    kept, roles = _without_labels(rows, labels, kept, roles, spec, notes)
    groups = _groups(rows, images, notes)
    if files is not None:
        kept = _without_duplicates(rows, images, files, labels, roles, groups, kept, notes)
    splits: dict[str, Split] = {}
    unlabelled: dict[str, Sequence[str]] = {}
    chosen = {role: np.flatnonzero(kept & (roles == code)) for role, code in _CODE.items()}
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
        _refuse_unlearnable(rows, labels, chosen)
    _say_torn_groups(rows, groups, chosen, notes)
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


def _without_labels(
    rows: Rows,
    labels: Labels,
    kept: Bool[np.ndarray, " n"],
    roles: Int32[np.ndarray, " n"],
    spec: TableConfig,
    notes: list[str],
) -> tuple[Bool[np.ndarray, " n"], Int32[np.ndarray, " n"]]:
    """Returns which rows are kept and the splits that they are in, rows without a label considered."""
    roles = roles.copy()
    for role, code in _CODE.items():
        here = kept & (roles == code)
        without = np.flatnonzero(here & ~labels.labelled)
        if role == "unlabelled" or not len(without):
            continue
        if len(without) == here.sum() and role in ("test", "validation"):
            roles[without] = _CODE["unlabelled"]
        elif labels.targets is None:
            named = ", ".join(rows.place(row) for row in without[:_NAMED])
            more = f" and {len(without) - _NAMED:,} more" if len(without) > _NAMED else ""
            message = f"{len(without):,} of {here.sum():,} rows of {rows.title} have no label ({named}{more})"
            if not spec.skip_missing or len(without) == here.sum():
                raise UserError(
                    f"{message}: give them one, or leave them out with --config.data.table.skip_missing=true"
                )
            kept = kept & labels.labelled
            notes.append(f"left out: {message}")
    return kept, roles


def _without_duplicates(
    rows: Rows,
    images: Images,
    files: Int64[np.ndarray, " n"],
    labels: Labels,
    roles: Int32[np.ndarray, " n"],
    groups: UInt64[np.ndarray, " n"] | None,
    kept: Bool[np.ndarray, " n"],
    notes: list[str],
) -> Bool[np.ndarray, " n"]:
    """Returns the rows that are kept when each file counts once; refuses rows that contradict each other."""
    chosen = np.flatnonzero(kept)
    order = chosen[np.argsort(files[chosen], kind="stable")]
    first, second = order[:-1], order[1:]
    same = files[first] == files[second]
    first, second = first[same], second[same]
    if not len(second):
        return kept
    by_label = labels.labels[first] != labels.labels[second]
    if labels.targets is not None:
        by_label = (labels.targets[first] != labels.targets[second]).any(1)
    by_split = roles[first] != roles[second]
    by_group = np.zeros(len(first), bool) if groups is None else groups[first] != groups[second]
    wrong = np.flatnonzero(by_label | by_split | by_group)
    if len(wrong):
        a, b = int(first[wrong[0]]), int(second[wrong[0]])
        if by_label[wrong[0]]:
            said = [_said(rows, labels, row) for row in (a, b)]
        elif by_split[wrong[0]]:
            said = [f"in {_ROLES[roles[row]]}" for row in (a, b)]
        else:
            assert rows.group is not None
            said = [f"in the group {quoted(rows.group.values[rows.group.codes[row]])}" for row in (a, b)]
        several = "; images with several labels have them in one cell, see config.data.table.separator"
        raise UserError(
            f"{rows.title} contradicts itself: {quoted(images.name(a))} is {said[0]} in {rows.place(a)} and {said[1]} "
            f"in {rows.place(b)}"
            + (f" (and {len(wrong) - 1:,} more such)" if len(wrong) > 1 else "")
            + f": remove what is wrong{several if by_label[wrong[0]] else ''}"
        )
    kept = kept.copy()
    kept[second] = False
    notes.append(f"{len(second):,} rows of {rows.title} say again what another says, and count once")
    return kept


def _said(rows: Rows, labels: Labels, row: int) -> str:
    if labels.targets is None:
        return quoted(labels.names[labels.labels[row]])
    return "+".join(quoted(labels.names[label]) for label in np.flatnonzero(labels.targets[row])) or "without a label"


def _refuse_unlearnable(rows: Rows, labels: Labels, chosen: Mapping[str, Int64[np.ndarray, " m"]]) -> None:
    train = chosen["train"]
    if not len(train):
        found = ", ".join(role for role, members in chosen.items() if len(members)) or "no images"
        raise UserError(f"{rows.title} has no images to train on: expected rows of the split train, found {found}")
    trained = _classes(labels, train)
    if len(trained) < 2:
        names = ", ".join(labels.names[label] for label in trained)
        raise UserError(f"{rows.title} must have images of two or more classes, found {len(trained)} ({names})")
    for role in ("test", "validation"):
        for label in _classes(labels, chosen[role]):
            if label not in trained:
                members = chosen[role]
                here = members[labels.labels[members] == label]
                if labels.targets is not None:
                    here = members[labels.targets[members, label] == 1]
                raise UserError(
                    f"{rows.title} has the label {quoted(labels.names[label])} in {role} alone ({len(here):,} images, "
                    f"{rows.place(int(here[0]))} for one), so it cannot be learnt: add training images of it, or "
                    f"remove those rows"
                )


def _classes(labels: Labels, members: Int64[np.ndarray, " m"]) -> list[int]:
    if labels.targets is not None:
        return np.flatnonzero(labels.targets[members].any(0)).tolist()
    return np.unique(labels.labels[members]).tolist()


def _say_torn_groups(
    rows: Rows,
    groups: UInt64[np.ndarray, " n"] | None,
    chosen: Mapping[str, Int64[np.ndarray, " m"]],
    notes: list[str],
) -> None:
    """Says so where a group lies in two of the table's own splits: what is measured there is too good."""
    if groups is None:
        return
    for role in ("test", "validation"):
        shared = np.intersect1d(groups[chosen["train"]], groups[chosen[role]])
        if len(shared):
            notes.append(f"{len(shared):,} groups of {rows.title} have images both in train and in {role}")
