"""A table whose labels somebody writes: which images have none that a person has seen, and what is said of them."""

import csv
import io
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from jaxnets.engine.onnx_file import write_bytes
from jaxnets.errors import UserError
from jaxnets.select.table import CHECKED, SEPARATOR, TITLES, divided

_IMAGE, _LABEL, _GUESS, _, _CHECKED, _ = range(len(TITLES))


class Checking:
    """A table of `python -m jaxnets.select`, open to be labelled; each label is on disk before the next is asked for.

    Columns that stand behind ours are kept. Several may label at once from one process.

    Args:
        file: the table.
        root: the folder that its paths are relative to; None: its own.

    Raises:
        UserError: if it is not there, or no table of ours.
    """

    def __init__(self, file: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> None:
        self.file = Path(file).expanduser()
        self._root = self.file.parent if root is None else Path(root).expanduser()
        self._lock = threading.Lock()
        self._seen = self._state()
        self._titles, self._rows = self._read()

    def __len__(self) -> int:
        return len(self._rows)

    def refresh(self) -> None:
        """Reads the table anew where something else has changed it; raises as when it was opened."""
        with self._lock:
            seen = self._state()
            if seen != self._seen:
                self._titles, self._rows = self._read()
                self._seen = seen

    @property
    def left(self) -> int:
        """How many images have no label that somebody has seen."""
        return sum(not self.checked(row) for row in range(len(self)))

    @property
    def classes(self) -> tuple[str, ...]:
        """Every label that the table holds, in the order of the alphabet."""
        cells = (cell for row in self._rows for cell in (row[_LABEL], row[_GUESS]))
        return tuple(sorted({label for cell in cells for label in divided(cell)}))

    def image(self, row: int) -> Path:
        """Returns where a row's image lies."""
        return self._root / self._rows[row][_IMAGE]

    def labels(self, row: int) -> tuple[str, ...]:
        """Returns what is said of it now: of one that nobody has checked, the model's guess."""
        return divided(self._rows[row][_LABEL])

    def checked(self, row: int) -> bool:
        """Whether a person has said so."""
        return self._rows[row][_CHECKED].strip().lower() == CHECKED

    def next(self, row: int = -1) -> int | None:
        """Returns the next image that nobody has checked, the first coming after the last; None where all are."""
        order = [*range(row + 1, len(self)), *range(min(row + 1, len(self)))]
        return next((number for number in order if not self.checked(number)), None)

    def say(self, row: int, labels: Sequence[str]) -> None:
        """Writes what a person says of an image.

        Raises:
            UserError: if there is no label, the table was changed by something else meanwhile, or cannot be written.
        """
        if not labels:
            raise UserError("choose a label first")
        if wrong := [label for label in labels if SEPARATOR in label or not label.strip()]:
            raise UserError(f"a label is a word or some without {SEPARATOR!r}, found {wrong[0]!r}")
        with self._lock:
            if self._state() != self._seen:
                raise UserError(
                    f"{self.file} was changed by something else: nothing was written. Close what changed it, and open "
                    f"the page anew"
                )
            kept = list(self._rows[row])
            self._rows[row][_LABEL], self._rows[row][_CHECKED] = SEPARATOR.join(labels), CHECKED
            try:
                self._write()
            except UserError:
                self._rows[row] = kept
                raise
            self._seen = self._state()

    def _read(self) -> tuple[list[str], list[list[str]]]:
        try:
            with self.file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as opened:
                rows = [row for row in csv.reader(opened) if row]
        except (OSError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"{self.file} cannot be read ({reason}): expected a table that python -m jaxnets.select has written"
            ) from error
        titles = rows[0] if rows else []
        if tuple(titles[: len(TITLES)]) != TITLES:
            raise UserError(
                f"{self.file} is no table of python -m jaxnets.select: expected the columns {', '.join(TITLES)}, found "
                f"{', '.join(titles[:8]) or 'none'}"
            )
        for number, row in enumerate(rows[1:], 2):
            if len(row) != len(titles):
                raise UserError(f"{self.file}: line {number} has {len(row)} cells, expected {len(titles)}: mend it")
        if len(rows) == 1:
            raise UserError(f"{self.file} has no images: choose some (python -m jaxnets.select)")
        return titles, rows[1:]

    def _write(self) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([self._titles, *self._rows])
        write_bytes(self.file, text.getvalue().encode("utf-8", "surrogateescape"))

    def _state(self) -> tuple[int, int, int] | None:
        """Returns what changes when the file does; None where it is gone."""
        try:
            found = self.file.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
