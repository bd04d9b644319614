"""Classes of rows: from cells to numbers, sets of labels, and the names of the classes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from jaxnets.data.sources.names import printable
from jaxnets.data.sources.table.rows import NO_VALUE, Rows
from jaxnets.errors import UserError, nearest, quoted

_WHOLE = re.compile(r"[-+]?\d+(\.0+)?")


@dataclass(frozen=True, kw_only=True)
class Labels:
    names: tuple[str, ...]
    labels: Int32[np.ndarray, " n"]  # 0 where there is none
    labelled: Bool[np.ndarray, " n"]
    targets: UInt8[np.ndarray, "n classes"] | None  # where an image may have several
    notes: tuple[str, ...] = ()


def read_labels(
    rows: Rows, counts: Bool[np.ndarray, " n"], separator: str | None, known: Sequence[str] | None
) -> Labels:
    """Returns the classes of all rows.

    Names are sorted, numbers by value; columns keep their order, and so does what `rows.class_names` says of numbers.
    Numbers that are written as 3 and as 3.0 are one class. Where labels are asked for in several columns or with a
    separator, but every row has exactly one, they are classes like any others.

    Args:
        rows: of the table.
        counts: which of them count: what the others say makes no class.
        separator: between the labels of one cell.
        known: classes of the model to evaluate; numbers that are no names of its classes are their positions then.

    Raises:
        UserError: for labels that are none of those known, or contradict `rows.class_names`.
    """
    if rows.flags is not None:
        cells: list[tuple[str, ...]] = [(printable(name.strip()),) for name in rows.columns.labels]
        member = rows.flags
        labelled = np.ones(len(rows), bool)
    else:
        assert rows.label is not None
        cells = _cells(rows.label.values, separator)
        member = None
        labelled = np.array([bool(cell) for cell in cells], bool)[rows.label.codes]
    present = np.zeros(len(cells), bool)
    if member is None and rows.label is not None:
        present[rows.label.codes[counts]] = True
    else:
        present[:] = True
    found = list(dict.fromkeys(name for cell, there in zip(cells, present, strict=True) if there for name in cell))
    names, position, notes = _names(rows, found, known)
    # [different cells, classes]: which labels a cell means
    meaning = np.zeros((len(cells), len(names)), np.uint8)
    for row, cell in enumerate(cells):
        if present[row]:
            meaning[row, [position[name] for name in cell]] = 1
    several = rows.flags is not None or separator is not None
    if not several:
        assert rows.label is not None
        label_of = meaning.argmax(1).astype(np.int32) if names else np.zeros(len(cells), np.int32)
        return Labels(names=names, labels=label_of[rows.label.codes], labelled=labelled, targets=None, notes=notes)
    if member is not None:
        targets = np.zeros((len(rows), len(names)), np.uint8)
        targets[:, [position[cell[0]] for cell in cells]] = member
    else:
        assert rows.label is not None
        targets = meaning[rows.label.codes]
    labels = targets.argmax(1).astype(np.int32) if names else np.zeros(len(rows), np.int32)
    looked_at = counts & (labelled if member is None else True)
    if counts.any() and (targets[looked_at].sum(1) == 1).all():
        notes = (*notes, f"every image of {rows.title} has exactly one label, so each label is a class")
        return Labels(names=names, labels=labels, labelled=labelled, targets=None, notes=notes)
    # An empty cell among several labels is an image that shows none of them.
    return Labels(names=names, labels=labels, labelled=labelled, targets=targets, notes=notes)


def sorted_names(names: Sequence[str]) -> list[str]:
    """Returns the names in order, numbers first and by their value."""
    return sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))


def _cells(values: Sequence[str], separator: str | None) -> list[tuple[str, ...]]:
    """Returns the names in each cell as they are shown, none where there is no label."""
    divided = [[value] if separator is None else value.split(separator) for value in values]
    cells = [[printable(name) for part in parts if (name := part.strip()).lower() not in NO_VALUE] for parts in divided]
    if all(_WHOLE.fullmatch(name) for cell in cells for name in cell):  # pandas writes 3.0 where a column has gaps
        cells = [[str(int(float(name))) if "." in name else name for name in cell] for cell in cells]
    return [tuple(cell) for cell in cells]


def _names(
    rows: Rows, found: list[str], known: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, int], tuple[str, ...]]:
    """Returns the names of the classes, the position of each name that was found, and notes."""
    if rows.class_names is not None:
        position = _by_number(found, rows.class_names)
        if position is None:
            wrong = next(name for name in found if _by_number([name], rows.class_names) is None)
            raise UserError(
                f"{rows.title} has the label {quoted(wrong)}{nearest(wrong, rows.class_names)}, which is neither a "
                f"name nor a number of its {len(rows.class_names)} classes (0 … {len(rows.class_names) - 1})"
            )
        return tuple(rows.class_names), position, ()
    if known is None:
        names = found if rows.flags is not None else sorted_names(found)
        return tuple(names), {name: label for label, name in enumerate(names)}, ()
    by_name = {name: label for label, name in enumerate(known)}
    unknown = [name for name in found if name not in by_name]
    if not unknown:
        return tuple(known), by_name, ()
    position = _by_number(found, known)
    if position is not None and len(unknown) == len(found):
        note = f"the labels of {rows.title} are numbers, read as positions among the model's classes: 0 is {known[0]}"
        return tuple(known), position, (note,)
    raise UserError(
        f"{rows.title} has the label {quoted(unknown[0])}{nearest(unknown[0], known)}"
        + (f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else "")
        + f", which the model does not know; its classes are {', '.join(known[:10])}"
        + (", …" if len(known) > 10 else "")
    )


def _by_number(found: Sequence[str], names: Sequence[str]) -> dict[str, int] | None:
    """Returns the position of each: all of them names, or all numbers of names; None where they are neither."""
    by_name = {name: label for label, name in enumerate(names)}
    if all(name in by_name for name in found):
        return {name: by_name[name] for name in found}
    if all(name.isdecimal() and int(name) < len(names) for name in found):
        return {name: int(name) for name in found}
    return None
