"""What contradicts itself in a table, what cannot be learnt from it, and what looks odd."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt64

from jaxnets.data.sources.table.labels import Labels
from jaxnets.data.sources.table.rows import Rows
from jaxnets.errors import UserError, quoted

_SEPARATORS = ("|", ";", ",", "/", "+", "&", " ")  # that are usual between the labels of one cell
_MANY = 10  # images, each of a class of its own, from which on that is said


def without_duplicates(
    rows: Rows,
    name_of: Callable[[int], str],
    files: Int64[np.ndarray, " n"],
    labels: Labels,
    roles: Int32[np.ndarray, " n"],
    groups: UInt64[np.ndarray, " n"] | None,
    kept: Bool[np.ndarray, " n"],
    role_names: Sequence[str],
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
            said = [f"in {role_names[roles[row]]}" for row in (a, b)]
        else:
            assert rows.group is not None
            said = [f"in the group {quoted(rows.group.values[rows.group.codes[row]])}" for row in (a, b)]
        several = "; images with several labels have them in one cell, see config.data.table.separator"
        raise UserError(
            f"{rows.title} contradicts itself: {quoted(name_of(a))} is {said[0]} in {rows.place(a)} and {said[1]} "
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


def refuse_unlearnable(rows: Rows, labels: Labels, chosen: Mapping[str, Int64[np.ndarray, " m"]]) -> None:
    """Refuses rows, `chosen` of each split, that no classifier can be trained on, or be tested on afterwards."""
    train = chosen["train"]
    if not len(train):
        found = ", ".join(role for role, members in chosen.items() if len(members)) or "no images"
        raise UserError(f"{rows.title} has no images to train on: expected rows of the split train, found {found}")
    trained = _classes(labels, train)
    if len(trained) < 2:
        names = ", ".join(labels.names[label] for label in trained)
        one = "; whether an image has one label is a question of two classes, say yes and no: write them in one column"
        raise UserError(
            f"{rows.title} must have images of two or more classes, found {len(trained)} ({names})"
            + (one if labels.targets is not None and len(trained) == 1 else "")
        )
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


def say_odd_labels(rows: Rows, labels: Labels, train: Int64[np.ndarray, " m"], notes: list[str]) -> None:
    """Says so where two classes may well be one, and where a column can hardly be that of the labels."""
    folded: dict[str, str] = {}
    alike = []
    for name in labels.names:
        other = folded.setdefault("".join(name.casefold().split()), name)
        if other != name:
            alike.append(f"{quoted(other)} and {quoted(name)}")
    if alike:
        more = f" ({len(alike) - 1} more such)" if len(alike) > 1 else ""
        notes.append(f"{rows.title} has the classes {alike[0]}{more}: they count as two")
    if (found := _joined(labels.names)) is not None:
        joined, separator = found
        notes.append(
            f"{rows.title} has the class {quoted(joined)} beside those that it is made of: if an image may have "
            f"several labels, say so with config.data.table.separator={quoted(separator)}"
        )
    trained = _classes(labels, train)
    if len(trained) < len(labels.names):
        missing = sorted(set(range(len(labels.names))) - set(trained))
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        notes.append(f"{rows.title} has no training images of {quoted(labels.names[missing[0]])}{more}")
    if labels.targets is None and len(train) >= _MANY and len(trained) == len(train):
        notes.append(
            f"each label of {rows.title} comes once: look whether {quoted(rows.columns.label or '')} says them"
        )


def _joined(names: Sequence[str]) -> tuple[str, str] | None:
    """Returns a name that is made of others, and what stands between them; None where there is none.

    A "black bear" beside "black" and "bear" is no set of labels, but two such names are.
    """
    known = set(names)
    for separator in _SEPARATORS:
        parts = {name: [part.strip() for part in name.split(separator)] for name in names if separator in name}
        joined = [name for name, each in parts.items() if known.issuperset(each)]
        if len(joined) > (separator == " "):
            return joined[0], separator
    return None


def _classes(labels: Labels, members: Int64[np.ndarray, " m"]) -> list[int]:
    if labels.targets is not None:
        return np.flatnonzero(labels.targets[members].any(0)).tolist()
    return np.unique(labels.labels[members]).tolist()


def say_torn_groups(
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
