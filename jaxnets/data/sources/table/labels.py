"""Classes of rows: from cells to numbers, sets of labels, and the names of the classes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from jaxnets.data.sources.names import printable
from jaxnets.data.sources.table.rows import NO_VALUE, Rows
from jaxnets.errors import UserError, nearest, quoted

_BITS = frozenset({"0", "1", "true", "false"})
_FRACTION = re.compile(r"[-+]?\d*[.,]\d*[1-9]\d*([eE][-+]?\d+)?|[-+]?\d+([.,]\d*)?[eE]-\d+")
_FEW, _SEVERAL = 10, 3  # values, and images of each, that classes written as fractions would have at least
_WHOLE = re.compile(r"[-+]?\d+(\.0+)?")


@dataclass(frozen=True, kw_only=True)
class Labels:
    names: tuple[str, ...]
    labels: Int32[np.ndarray, " n"]  # 0 where there is none
    targets: UInt8[np.ndarray, "n classes"] | None  # where an image may have several
    notes: tuple[str, ...] = ()


def without_label(rows: Rows) -> Bool[np.ndarray, " n"]:
    """Returns which rows have an empty cell where their label should be."""
    if rows.label is None:
        return np.zeros(len(rows), bool)
    empty = [value.strip().lower() in NO_VALUE for value in rows.label.values]
    return np.array(empty, bool)[rows.label.codes]


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
        separator: between the labels of one cell; an empty one is an image with none of them.
        known: classes of the model to evaluate; numbers that are no names of its classes are their positions then.

    Raises:
        UserError: for labels that are none of those known, or contradict `rows.class_names`.
    """
    if rows.flags is not None:
        columns = [printable(name.strip()) for name in rows.columns.labels]
        names, position, notes = _names(rows, columns, known)
        targets = np.zeros((len(rows), len(names)), np.uint8)
        targets[:, [position[name] for name in columns]] = rows.flags
        return _of_targets(rows, targets, counts, names, notes)
    assert rows.label is not None
    codes, cells = rows.label.codes, _cells(rows.label.values, separator)
    present = np.unique(codes[counts]).tolist()
    if separator is not None:
        _refuse_vectors(rows.title, [cells[i] for i in present])
    elif known is None and rows.class_names is None:
        _refuse_quantity(rows, [name for i in present for name in cells[i]], int(counts.sum()))
    names, position, notes = _names(rows, list(dict.fromkeys(name for i in present for name in cells[i])), known)
    if separator is None:
        label_of = np.zeros(len(cells), np.int32)
        for i in present:
            label_of[i] = position[cells[i][0]] if cells[i] else 0
        return Labels(names=names, labels=label_of[codes], targets=None, notes=notes)
    meaning = np.zeros((len(cells), len(names)), np.uint8)  # which labels each different cell means
    for i in present:
        meaning[i, [position[name] for name in cells[i]]] = 1
    return _of_targets(rows, meaning[codes], counts, names, notes)


def _of_targets(
    rows: Rows,
    targets: UInt8[np.ndarray, "n classes"],
    counts: Bool[np.ndarray, " n"],
    names: tuple[str, ...],
    notes: tuple[str, ...],
) -> Labels:
    labels = targets.argmax(1).astype(np.int32) if names else np.zeros(len(rows), np.int32)
    if counts.any() and (targets[counts].sum(1) == 1).all():
        notes = (*notes, f"every image of {rows.title} has exactly one label, so each label is a class")
        return Labels(names=names, labels=labels, targets=None, notes=notes)
    return Labels(names=names, labels=labels, targets=targets, notes=notes)


def sorted_names(names: Sequence[str]) -> list[str]:
    """Returns the names in order, numbers first and by their value."""
    return sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))


def _cells(values: Sequence[str], separator: str | None) -> list[tuple[str, ...]]:
    """Returns the names in each cell as they are shown, none where there is no label."""
    divided = [[value] if separator is None else value.split(separator) for value in values]
    cells = [[printable(name) for part in parts if (name := part.strip()).lower() not in NO_VALUE] for parts in divided]
    if all(_WHOLE.fullmatch(name) for cell in cells for name in cell):  # pandas writes 3.0 where a column has gaps
        cells = [[str(int(name.partition(".")[0])) if "." in name else name for name in cell] for cell in cells]
    return [tuple(cell) for cell in cells]


def _refuse_vectors(title: str, cells: Sequence[Sequence[str]]) -> None:
    """Refuses what says of each label whether it is set: read as names, they are the labels 0 and 1 of all images."""
    lengths = {len(cell) for cell in cells}
    if len(lengths) == 1 and max(lengths) > 1 and {name for cell in cells for name in cell} <= _BITS:
        raise UserError(
            f"the labels of {title} are {max(lengths)} numbers 0 or 1 for each image ({', '.join(cells[0][:9])}): "
            f"write in their place which labels it has, or give a column for each, with config.data.table.labels"
        )


def _refuse_quantity(rows: Rows, found: Sequence[str], count: int) -> None:
    """Refuses labels that measure something: fractions, most of which come once or twice."""
    fractions = [name for name in found if _FRACTION.fullmatch(name)]
    if len(found) < _FEW or len(found) * _SEVERAL < count or 3 * len(fractions) < len(found):
        return
    raise UserError(
        f"the labels of {rows.title}, in the column {quoted(rows.columns.label or '')}, are a quantity: {len(found):,} "
        f"different values in {count:,} rows ({', '.join(fractions[:3])}, …). jaxnets sorts images into classes and "
        f"predicts no quantities: divide it into a few ranges and write their names ('low', 'middle', 'high') in a "
        f"column, which config.data.table.label names. If these are the names of classes, write a letter before them"
    )


def _names(
    rows: Rows, found: list[str], known: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, int], tuple[str, ...]]:
    """Returns the names of the classes, the position of each name that was found, and notes."""
    if rows.class_names is not None:
        return tuple(rows.class_names), *_described(found, rows.class_names, rows.title)
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


def _described(found: Sequence[str], names: Sequence[str], title: str) -> tuple[dict[str, int], tuple[str, ...]]:
    """Returns the position of each among classes that the data set names itself, and notes."""
    by_name = {name: label for label, name in enumerate(names)}
    position = _by_number(found, names)
    if position is not None:  # also of classes that are called by numbers: 1 is the second, be it called "2"
        if all(by_name.get(name, label) == label for name, label in position.items()):
            return position, ()
        return position, (f"the labels of {title} are numbers, read as positions among its classes: 0 is {names[0]}",)
    if all(name in by_name for name in found):
        return {name: by_name[name] for name in found}, ()
    wrong = next((name for name in found if name not in by_name and _by_number([name], names) is None), None)
    if wrong is None:
        number, name = (next(each for each in found if (each in by_name) == named) for named in (False, True))
        raise UserError(
            f"{title} has the labels {quoted(number)}, a number, and {quoted(name)}, a name: write one kind"
        )
    raise UserError(
        f"{title} has the label {quoted(wrong)}{nearest(wrong, names)}, which is neither a name nor a number of its "
        f"{len(names)} classes (0 … {len(names) - 1})"
    )


def _by_number(found: Sequence[str], names: Sequence[str]) -> dict[str, int] | None:
    """Returns the position of each where all are numbers of names."""
    if all(name.isdecimal() and int(name) < len(names) for name in found):
        return {name: int(name) for name in found}
    return None
