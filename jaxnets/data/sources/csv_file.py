"""Tables of images as text: comma, semicolon, tab or bar between the cells, a line of titles above them."""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from jaxnets.config import DataConfig
from jaxnets.data.sources.base import Source
from jaxnets.data.sources.bucket import BUCKET, read_whole
from jaxnets.data.sources.names import printable
from jaxnets.data.sources.table.columns import as_far_as_there, choose
from jaxnets.data.sources.table.files import source_of_files
from jaxnets.data.sources.table.rows import Rows, encode, parse_flag
from jaxnets.errors import UserError, quoted

_DELIMITERS = ",;\t|"
_LOOKED_AT = 50  # lines, to tell what is between the cells
_SEPARATOR = re.compile(rb"(\xef\xbb\xbf)?sep=[^\r\n](?=[\r\n])", re.IGNORECASE)  # a first line of Excel's
_OTHER_FORMATS = {
    b"PK\x03\x04": "an Excel workbook or a ZIP archive: save the table as CSV",
    b"\x1f\x8b": "compressed: gunzip it",
    b"PAR1": "a Parquet file: give parquet:FILE",
}


def open_csv(location: str, spec: DataConfig, known: Sequence[str] | None) -> Source:
    """Opens a CSV file: a line of titles, then a line for each image with its path and its class (RFC 4180).

    Which columns are which `jaxnets.data.sources.table.columns` says, where the files lie `…table.locate`. UTF-8 with
    or without a byte order mark, and UTF-16 with one; cells may be quoted, and hold newlines then.

    Args:
        location: the file.
        spec: `root`, `table`, `white_level`.
        known: classes to evaluate on, or None to train.

    Returns:
        A source with the splits that a column names, else "train", or "all" to evaluate on.

    Raises:
        UserError: if the file is no such table, or files, labels or splits are missing or contradict each other.
    """
    file = location if location.startswith(BUCKET) else os.path.expanduser(location)
    title = printable(os.path.basename(file))
    content = _content(file, location)
    encoding = _encoding(content[:4096], title)
    if separator := _SEPARATOR.match(content):  # for Excel alone; a blank line in its place keeps the lines' numbers
        content = content[separator.end() :]
    delimiter, names = _sniff(content, encoding, title)
    keys = spec.table if known is None else as_far_as_there(spec.table, names)
    columns = choose(names, title, keys)
    position = {name: names.index(name) for name in columns.wanted()}
    numbers: list[int] = []
    cells: dict[str, list[str]] = {name: [] for name in columns.wanted() if name not in columns.labels}
    flags = bytearray()
    guesses = names.index("checked") if {"guess", "checked"} <= set(names) else None  # as `jaxnets.select` writes them
    unchecked = 0
    same: dict[str, str] = {}  # a million of equal labels are one string
    for number, record in _records(content, encoding, delimiter, title):
        if len(record) < len(names) or any(cell.strip() for cell in record[len(names) :]):
            raise UserError(
                f"{title}, line {number}: expected {len(names)} cells as in the line of titles, found {len(record)}: "
                f"mend the line; a cell with {delimiter!r} in it must stand in quotes"
            )
        numbers.append(number)
        for name, column in cells.items():
            cell = record[position[name]]
            column.append(cell if name == columns.image else same.setdefault(cell, cell))
        unchecked += guesses is not None and record[guesses].strip().lower() == "no"
        for name in columns.labels:
            flags.append(parse_flag(record[position[name]], title, f"line {number}", name))
    if not numbers:
        raise UserError(f"{title} has a line of titles and nothing below it: expected a line for each image")
    for name, column in cells.items():
        if name != columns.image:
            _refuse_undecodable(column, numbers, title)
    rows = Rows(
        title=title,
        unit="line",
        numbers=np.array(numbers, np.int64),
        columns=columns,
        label=None if columns.label is None or columns.labels else encode(cells[columns.label]),
        flags=np.frombuffer(flags, np.uint8).reshape(len(numbers), -1) if columns.labels else None,
        split=None if columns.split is None else encode(cells[columns.split]),
        group=None if columns.group is None else encode(cells[columns.group]),
    )
    if rows.label is None and rows.flags is None:
        raise UserError(f"{title} has no column for the label, found {', '.join(map(quoted, names))} alone")
    source = source_of_files(rows, cells[columns.image], file, spec, known, f"csv:{printable(location)}")
    if not unchecked:
        return source
    note = f"the labels of {unchecked:,} rows of {title} are a model's guesses that nobody has checked (checked: no)"
    return replace(source, notes=(*source.notes, note))


def _content(file: str, location: str) -> bytes:
    try:
        return read_whole(file) if file.startswith(BUCKET) else Path(file).read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"config.data.source csv:{printable(location)} cannot be read: {reason}") from error


def _encoding(start: bytes, title: str) -> str:
    for magic, what in _OTHER_FORMATS.items():
        if start.startswith(magic):
            raise UserError(f"{title} is no CSV file but {what}")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"  # as Excel saves "Unicode text"
    if b"\0" in start:
        raise UserError(f"{title} must be a CSV file, text in UTF-8, found binary data")
    if not start.strip():
        raise UserError(f"{title} is empty: expected a line of titles and a line for each image")
    return "utf-8-sig"


def _sniff(content: bytes, encoding: str, title: str) -> tuple[str, list[str]]:
    """Returns what is between the cells, and the titles: whatever divides the lines alike, into the most cells."""
    best: tuple[float, int, str, list[str]] | None = None
    problem: UserError | None = None
    for delimiter in _DELIMITERS:
        try:
            records = [record for _, record in islice(_records(content, encoding, delimiter, title, 1), _LOOKED_AT)]
        except UserError as error:
            problem = problem or error
            continue
        if records and len(records[0]) > 1:
            alike = Counter(map(len, records))[len(records[0])] / len(records)
            if best is None or (alike, len(records[0])) > best[:2]:
                best = alike, len(records[0]), delimiter, records[0]
    if best is None:
        if problem is not None:
            raise problem
        first = next(iter(_records(content, encoding, ",", title, 1)), (0, [""]))[1]
        raise UserError(
            f"{title} must have a line of titles with two or more columns, a comma, semicolon, tab or bar between "
            f"them, found {quoted(','.join(first))}"
        )
    names = [printable(name.strip()) for name in best[3]]
    while not names[-1]:  # a delimiter at the end of the line
        names.pop()
    return best[2], names


def _records(
    content: bytes, encoding: str, delimiter: str, title: str, first: int = 2
) -> Iterator[tuple[int, list[str]]]:
    """Yields line and cells of each record that is not blank, from record `first` on."""
    number = seen = 0
    # Bytes that are no UTF-8 come through as they are: file names may hold them.
    errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
    try:
        lines = io.TextIOWrapper(io.BytesIO(content), encoding=encoding, errors=errors, newline="")
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=delimiter != "\t", strict=True)
        for record in reader:
            line, number = number + 1, reader.line_num
            if any(cell.strip() for cell in record):
                seen += 1
                if seen >= first:
                    yield line, record
    except csv.Error as error:
        reason = str(error)
        if "unexpected end of data" in reason:
            reason = f"the quotes that open in line {number + 1} or below are never closed"
        raise UserError(f"{title}, line {number + 1}: {reason}: mend the quotes there") from error
    except UnicodeError as error:
        raise UserError(f"{title} cannot be read: {error}") from error


def _refuse_undecodable(column: Sequence[str], numbers: Sequence[int], title: str) -> None:
    wrong = {cell for cell in set(column) if not cell.isascii() and any("\udc80" <= c <= "\udcff" for c in cell)}
    if wrong:
        row = next(row for row, cell in enumerate(column) if cell in wrong)
        raise UserError(
            f"{title}, line {numbers[row]}: {quoted(printable(column[row]))} holds bytes that are no UTF-8: save the "
            f"table as UTF-8 (in Excel, 'CSV UTF-8')"
        )
