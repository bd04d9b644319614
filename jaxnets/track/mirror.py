"""A remote run that is kept like the run directory: whatever it lacks is read from there, so nothing is ever lost.

A row is sent when it can no longer come again: once a checkpoint covers it. A session that goes on from there writes
rows after it only, and what a tracker has got is never contradicted. Which rows a remote run has is noted in the run
directory after they were sent; of a session that was killed in between they are sent twice, with the same step and
time, and services take that for one.
"""

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from jaxnets.run.storage import Place, bucket_errors, kind_of, names_in
from jaxnets.track.ledger import Ledger
from jaxnets.track.tracker import About, Ended, Kept, Remote, Row, numbers_in
from jaxnets.track.tracker import kind_of as kind_of_row

AT_ONCE = 100  # rows
CURVES, FIRST_BATCH = "curves.png", "first_batch.png"
METRICS, PAGE = "metrics.json", "index.html"  # of a report


class Abandoned(Exception):
    """Nobody waits any longer for what was to be sent."""


@dataclass(frozen=True, kw_only=True)
class Destination:
    """A place where a run can be seen."""

    title: str  # for people: MLflow at http://…
    place: str  # in the ledger
    open: Callable[[About, Kept], Remote]  # reaches the remote run, or begins it; it may raise anything
    own_files: str = ""  # what is to be done with what its library took and could not send


class Mirror:
    """Keeps the run at a destination like the directory `folder`, in which metrics.jsonl and the images lie."""

    def __init__(
        self, destination: Destination, ledger: Ledger, describe: Callable[[str], About], folder: Place
    ) -> None:
        self.destination = destination
        self._ledger, self._describe, self._folder = ledger, describe, folder
        self._remote: Remote | None = None
        self._lines, self._offset = 0, 0  # of metrics.jsonl, that were read
        self.abandoned = False

    @property
    def kept(self) -> Kept:
        return self._ledger.kept(self.destination.place)

    def sync(self, lines: int | None = None, *, final: bool = True) -> None:
        """Sends what the remote run lacks: of the first `lines` of metrics.jsonl, and images; curves when `final`."""
        remote = self.open()
        self._send_rows(remote, lines)
        for name in (FIRST_BATCH, CURVES) if final else (FIRST_BATCH,):
            self._send_image(remote, name)

    def open(self) -> Remote:
        self._go_on()
        if self._remote is None:
            kept = self.kept
            remote = self.destination.open(self._describe(kept.key), kept)
            if kept.id is not None and remote.id != kept.id:  # it was removed there: all of it is sent anew
                self._ledger.keep(self.destination.place, sent=0, steps={}, files={})
            self._keep(id=remote.id, address=remote.address)
            self._remote = remote
            self._lines, self._offset = 0, 0
        return self._remote

    def report(self, folder: Place, *, row: bool = True) -> None:
        """Sends the report of an evaluation: the page, its figures, and its numbers also as a row unless told not."""
        names = [name for name in names_in(folder) if name in (METRICS, PAGE) or name.endswith(".png")]
        if METRICS not in names:
            return
        with bucket_errors(folder):
            files = {name: (folder / name).read_bytes() for name in sorted(names)}
        remote, checksum = self.open(), zlib.crc32(b"".join(files.values()))
        numbers = row_of_report(json.loads(files[METRICS])) if row else None
        figures = zlib.crc32(json.dumps(numbers).encode())  # a page of the same figures has other times in it
        if numbers is not None and self.kept.files.get("figures") != figures:
            remote.rows([numbers])
            self._keep(sent=self.kept.sent + 1, files={**self.kept.files, "figures": figures})
        if self.kept.files.get("report") != checksum:
            remote.files("report", files)
            self._keep(files={**self.kept.files, "report": checksum})

    def lacking(self, lines: int | None) -> tuple[int, int]:
        """Returns how many of the first lines of metrics.jsonl the remote run lacks, and of how many."""
        rows = [row for row in map(_parsed, self._read(0, lines)[0]) if row is not None]
        return sum(map(self.kept.lacks, rows)), len(rows)

    def close(self, ended: Ended | None, why: str = "") -> None:
        self._go_on()
        remote, self._remote = self._remote, None
        if remote is not None:
            remote.close(ended, why)

    def _send_rows(self, remote: Remote, lines: int | None) -> None:
        while lines is None or self._lines < lines:
            left = None if lines is None else lines - self._lines
            # A directory's file is read bit by bit, whatever its length; an object of a bucket comes whole.
            limit = min(AT_ONCE, left or AT_ONCE) if isinstance(self._folder, Path) else left
            found, offset = self._read(self._offset, limit)
            if not found:
                return
            self._go_on()
            kept = self.kept
            rows = [row for row in map(_parsed, found) if row is not None and kept.lacks(row)]
            if rows:
                remote.rows(rows)
                steps = {**kept.steps, **{kind_of_row(row): row["step"] for row in rows}}
                self._keep(sent=kept.sent + len(rows), steps=steps)
            self._lines, self._offset = self._lines + len(found), offset

    def _send_image(self, remote: Remote, name: str) -> None:
        file, kept = self._folder / name, self.kept
        if kind_of(file) is None:
            return
        self._go_on()
        with bucket_errors(file):
            png = file.read_bytes()
        checksum = zlib.crc32(png)
        if kept.files.get(name) != checksum:
            step = 1 if name == FIRST_BATCH else max(kept.steps.values(), default=0)
            remote.image(name.removesuffix(".png"), png, step)
            self._keep(sent=kept.sent + 1, files={**kept.files, name: checksum})

    def _read(self, offset: int, limit: int | None) -> tuple[list[bytes], int]:
        """Returns whole lines of metrics.jsonl from an offset on, and the offset after them."""
        path = self._folder / "metrics.jsonl"
        if kind_of(path) is None:
            return [], offset
        with bucket_errors(path):
            if isinstance(path, Path):
                with path.open("rb") as file:
                    file.seek(offset)
                    lines = list(islice(file, limit))
            else:
                lines = list(islice(path.read_bytes()[offset:].splitlines(keepends=True), limit))
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()  # it is being written
        return lines, offset + sum(map(len, lines))

    def _keep(self, **changed: Any) -> None:
        self._ledger.keep(self.destination.place, **changed)

    def _go_on(self) -> None:
        if self.abandoned:
            raise Abandoned


def row_of_report(metrics: Mapping[str, Any]) -> Row | None:
    """Returns a report's numbers as a row, `test/accuracy` and so on, at the step of its weights; None without one."""
    if metrics.get("step") is None:
        return None
    own = {key: value for key, value in metrics.items() if key not in ("format", "step")}
    return {"step": metrics["step"], **{f"{metrics['split']}/{key}": value for key, value in numbers_in(own).items()}}


def _parsed(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None
