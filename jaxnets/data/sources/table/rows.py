"""The rows of a table, as its reader hands them over."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from jaxnets.data.sources.table.columns import Columns
from jaxnets.errors import UserError, quoted

NO_VALUE = frozenset({"", "nan", "null", "<na>"})  # in lower case; "none" and "NA" may be classes
_SET = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


@dataclass(frozen=True)
class Codes:
    """A column of few different values: that of row i is `values[codes[i]]`."""

    codes: Int32[np.ndarray, " n"]
    values: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a table says of its examples, apart from their images; "" where a cell is empty."""

    title: str  # what messages call the table
    unit: str  # and its rows: "line", "row"
    numbers: Int64[np.ndarray, " n"]  # of the rows, as messages count them
    names: Sequence[str] | None = None  # of the rows, where they have some
    columns: Columns
    label: Codes | None = None
    flags: UInt8[np.ndarray, "n labels"] | None = None  # of the columns `columns.labels`
    split: Codes | None = None  # of the column `columns.split`
    part: Codes | None = None  # the split (`Role`, "all") that each row's file or table is of, where they say one
    group: Codes | None = None
    class_names: Sequence[str] | None = None  # where the table says what the numbers of its labels mean

    def __len__(self) -> int:
        return len(self.numbers)

    def place(self, row: int) -> str:
        return f"{self.unit} {self.numbers[row]}" if self.names is None else self.names[row]


def encode(cells: Iterable[str]) -> Codes:
    """Returns a column by its different values, in the order in which they come."""
    seen: dict[str, int] = {}
    codes = [seen.setdefault(cell, len(seen)) for cell in cells]
    return Codes(np.array(codes, np.int32), list(seen))


def parse_flag(cell: str, title: str, place: str, column: str) -> int:
    """Returns whether a label is set; raises UserError for what is neither 0 nor 1."""
    value = _SET.get(cell.strip().lower())
    if value is None:
        raise UserError(
            f"{title}, {place}: the column {quoted(column)} must be 0 or 1, whether the image has this label, found "
            f"{quoted(cell)}"
        )
    return value
