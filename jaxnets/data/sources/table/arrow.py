"""Columns of Arrow as the cells of a table, and what their types and Hugging Face's description say of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnets.config import TableConfig
from jaxnets.data.sources.table.columns import Columns, as_far_as_there, choose
from jaxnets.data.sources.table.rows import Codes, Rows, encode, parse_flag
from jaxnets.errors import UserError, quoted

if TYPE_CHECKING:
    import pyarrow

_BETWEEN = "\x1f"  # labels that are a list in Arrow; no name holds it (ASCII's unit separator)


@dataclass(frozen=True, kw_only=True)
class Described:
    """What a column's description says beside its type."""

    images: tuple[str, ...]  # columns that hold images, as bytes or as {bytes, path}
    class_names: Mapping[str, Sequence[str]]  # column of numbers → names of the classes


def describe(schema: "pyarrow.Schema") -> Described:
    """Reads Arrow's types, and the features that Hugging Face `datasets` writes into the schema's metadata."""
    import pyarrow

    def holds_bytes(kind: Any) -> bool:
        return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)

    images = []
    for field in schema:
        inner = [field.type]
        if pyarrow.types.is_struct(field.type):
            inner = [each.type for each in field.type if each.name == "bytes"]
        if any(map(holds_bytes, inner)):
            images.append(field.name)
    names: dict[str, Sequence[str]] = {}
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        for column, feature in features.items():
            feature = feature.get("feature", feature)  # of a list
            if feature.get("_type") == "ClassLabel" and feature.get("names"):
                names[column] = [str(name) for name in feature["names"]]
    except (KeyError, TypeError, ValueError, AttributeError):  # none, or of another kind
        pass
    return Described(images=tuple(images), class_names=names)


def refuse_other_names(one: Described, other: Described, title: str) -> None:
    """Refuses a part of a data set whose numbers mean other classes than in the first."""
    for column in one.class_names.keys() & other.class_names.keys():
        first, second = list(one.class_names[column]), list(other.class_names[column])
        if first != second:
            number = next((n for n, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), None)
            differ = (
                f"{len(second)} classes, and the first has {len(first)}"
                if number is None
                else f"the class {quoted(second[number])} for {number}, and the first has {quoted(first[number])}"
            )
            raise UserError(f"{title} has, in the column {quoted(column)}, {differ}: write them with the same names")


def concatenated(tables: Sequence["pyarrow.Table"], wanted: Sequence[str], title: str) -> "pyarrow.Table":
    """Returns columns of tables that lie one behind the other, empty where a table has none of that name.

    Raises:
        UserError: where they are of kinds that cannot be joined.
    """
    import pyarrow

    parts = [
        pyarrow.table(
            {name: table[name] if name in table.column_names else pyarrow.nulls(len(table)) for name in wanted}
        )
        for table in tables
    ]
    try:
        return pyarrow.concat_tables(parts, promote_options="permissive")
    except pyarrow.ArrowException as error:
        raise UserError(f"the parts of {title} do not fit together: {' '.join(str(error).split())[:300]}") from error


def choose_columns(
    schema: "pyarrow.Schema", described: Described, title: str, spec: TableConfig, strict: bool
) -> tuple[Columns, TableConfig]:
    """Returns the columns that are meant, and the spec with the separator that lists of labels are written with.

    Where they need not be there (`strict`), columns that the spec names are passed over if they are not.
    """
    spec = spec if strict else as_far_as_there(spec, schema.names)
    image = described.images[0] if len(described.images) == 1 else None
    if not spec.label and not spec.labels and len(described.class_names) == 1:
        spec = replace(spec, label=next(iter(described.class_names)))
    columns = choose(schema.names, title, spec, image)
    if columns.label is None and not columns.labels:
        raise UserError(f"{title} has no column for the label, found {', '.join(schema.names)}")
    import pyarrow

    if columns.label is not None:
        lists = (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)
        if any(is_one(schema.field(columns.label).type) for is_one in lists):
            spec = replace(spec, separator=_BETWEEN)
    return columns, spec


def read_rows(
    table: "pyarrow.Table", columns: Columns, described: Described, title: str, part: Codes | None = None
) -> Rows:
    """Returns the rows of a table apart from its images; `part` is the split of the file that each is in."""
    count = len(table)
    numbers = np.arange(count)
    flags = None
    if columns.labels:
        flags = np.empty((count, len(columns.labels)), np.uint8)
        for number, name in enumerate(columns.labels):
            flags[:, number] = [
                parse_flag(cell, title, f"row {row}", name) for row, cell in enumerate(cells_of(table[name]))
            ]
    class_names = described.class_names.get(columns.label or "")
    label = None
    if columns.label is not None and not columns.labels:
        cells = cells_of(table[columns.label])
        if class_names is not None:
            cells = ["" if cell == "-1" else cell for cell in cells]  # how it is written that none is known
        label = encode(cells)
    return Rows(
        title=title,
        unit="row",
        numbers=numbers,
        columns=columns,
        label=label,
        flags=flags,
        split=None if columns.split is None else encode(cells_of(table[columns.split])),
        part=part,
        group=None if columns.group is None else encode(cells_of(table[columns.group])),
        class_names=class_names,
    )


def cells_of(column: "pyarrow.ChunkedArray") -> list[str]:
    """Returns the values as text: "" for null, true and false, and lists with a separator between their values."""
    same: dict[Any, str] = {}
    cells = []
    for value in column.to_pylist():
        if isinstance(value, list):
            cells.append(_BETWEEN.join(map(_text, value)))
        else:
            text = _text(value)
            cells.append(same.setdefault(text, text))
    return cells


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
