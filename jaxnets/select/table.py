"""The images that have a label, and the table that they and the chosen ones are written to, as `csv:` reads it."""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jaxnets.config import DataConfig
from jaxnets.data.sources import open_undivided
from jaxnets.data.sources.base import Split, Subset
from jaxnets.data.sources.files import FileSplit
from jaxnets.engine.onnx_file import check_writable, write_bytes
from jaxnets.errors import UserError, quoted

SEPARATOR = "|"  # between the labels of one image
TITLES = ("image", "label", "guess", "probability", "checked", "split")
GUESSED, CHECKED = "no", "yes"


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    file: str  # its absolute path
    labels: tuple[str, ...]
    split: str = "train"
    guess: tuple[str, ...] | None = None  # what the model says; None: a person has said the label
    probability: float | None = None  # of the model's most probable class
    group: str = ""  # of images that no split may divide


def read_labelled(given: str, root: str | None = None) -> list[Row]:
    """Returns the images that have a label: of a CSV file, or of another source of files (`folder:DIR`).

    Args:
        given: the file, or the source.
        root: the folder that paths in a table are relative to; None: the table's own.

    Raises:
        UserError: if it cannot be read, or its images are no files.
    """
    spec = DataConfig(source=given if ":" in given and not os.path.exists(given) else f"csv:{given}", root=root)
    ours: dict[str, list[str]] = {}
    if spec.source.startswith("csv:"):
        file = os.path.expanduser(spec.source.partition(":")[2])
        ours = _read_ours(file, root or os.path.dirname(file))
        if any(SEPARATOR in cells[1] for cells in ours.values()):
            spec = replace(spec, table=replace(spec.table, separator=SEPARATOR))
    source = open_undivided(spec)
    rows = []
    for name, split in source.splits.items():
        targets = split.targets
        for i, path in enumerate(_paths(split, given)):
            said = [int(split.labels[i])] if targets is None else np.flatnonzero(targets[i]).tolist()
            labels = tuple(source.class_names[k] for k in said)
            group = "" if split.groups is None else f"{int(split.groups[i]):016x}"
            row = Row(os.path.abspath(path), labels, name, group=group)
            cells = ours.get(row.file)
            if cells is not None and cells[4].strip().lower() == GUESSED:
                row = replace(row, guess=divided(cells[2]), probability=_number(cells[3]))
            rows.append(row)
    return rows


def _read_ours(file: str, root: str) -> dict[str, list[str]]:
    """Returns the lines of a table that we wrote, by the paths of their images; none of another table."""
    try:
        with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as opened:
            titles, *rows = csv.reader(opened)
    except (OSError, ValueError, csv.Error):  # whatever is wrong with it is said when it is opened
        return {}
    if tuple(titles[: len(TITLES)]) != TITLES:
        return {}
    return {os.path.abspath(os.path.join(root, cells[0])): cells for cells in rows if len(cells) >= len(TITLES)}


def divided(cell: str) -> tuple[str, ...]:
    """Returns the labels in a cell."""
    return tuple(filter(None, cell.split(SEPARATOR)))


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _paths(split: Split, given: str) -> Sequence[str]:
    if isinstance(split, Subset):
        paths = _paths(split.whole, given)
        return [paths[i] for i in split.chosen.tolist()]
    if not isinstance(split, FileSplit):
        raise UserError(
            f"--labelled must name images that are files (a CSV file, csv:FILE, folder:DIR, list:FILE), found "
            f"{quoted(given)}, whose images are not"
        )
    return split.paths


def check_target(out: Path, labelled: str | None) -> None:
    """Refuses to write over a table, in which somebody may have written labels.

    Raises:
        UserError: if there is one, or none can be written there.
    """
    if out.exists():
        kind = "is a folder" if out.is_dir() else "is there already, perhaps with labels that somebody wrote"
        hint = "" if labelled else f", and --labelled {out} if its images have their labels"
        raise UserError(f"{out} {kind}: give another --out{hint}")
    check_writable(out)


def root_for(out: Path, files: Iterable[str]) -> Path:
    """Returns the folder that the paths in a table are relative to: its own where that has all images."""
    beside = out.absolute().parent
    folders = {os.path.dirname(file) for file in files}
    common = Path(os.path.commonpath([*folders]))
    return beside if common.is_relative_to(beside) else common


def write_table(out: Path, root: Path, rows: Sequence[Row]) -> None:
    """Writes a line for each image, whole or not at all.

    Raises:
        UserError: if it cannot be written.
    """
    grouped = any(row.group for row in rows)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*TITLES, *(["group"] if grouped else [])])
    for row in rows:
        cells = [
            os.path.relpath(row.file, root),
            SEPARATOR.join(row.labels),
            "" if row.guess is None else SEPARATOR.join(row.guess),
            "" if row.probability is None else f"{row.probability:.4f}",
            CHECKED if row.guess is None else GUESSED,
            row.split,
        ]
        writer.writerow([*cells, *([row.group] if grouped else [])])
    write_bytes(out, text.getvalue().encode("utf-8", "surrogateescape"))
