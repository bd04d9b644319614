"""The format of records: one of fixed size for each image that was answered, behind a line that says of which model.

A file is `jaxnets-records 1 {JSON}\\n`, the JSON being `About`, and then the records of `RECORD`, little-endian and
packed. What was cut short, in its last record say, can be read up to there.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from jaxnets.errors import UserError, quoted

SUFFIX = ".records"
FORMAT = 1
PROJECTED = 16  # numbers that are kept of an embedding
UNKNOWN = -1  # in place of a class that nobody has said
_MAGIC = b"jaxnets-records"
_LONGEST_HEADER = 64 << 20  # bytes

RECORD = np.dtype(
    [
        ("id", "<u8"),  # of the answer, for labels that come later
        ("time", "<f8"),  # seconds since 1970, UTC, when the request had come
        ("latency", "<f4"),  # seconds from then to the answer; NaN in a reference
        ("label", "<i4"),  # the most probable class
        ("refused", "?"),  # whether the answer was "none of these"
        ("truth", "<i4"),  # the right class where it is known, as in a reference, or UNKNOWN
        ("confidence", "<f4"),  # probability of the most probable class
        ("energy", "<f4"),  # jaxnets.trust.outliers.energy
        ("brightness", "<f4"),  # jaxnets.monitor.observe.look, of what the model sees
        ("sharpness", "<f4"),
        ("width", "<i4"),  # pixels of the image as it came
        ("height", "<i4"),
        ("projection", "<f4", (PROJECTED,)),  # of the embedding
    ]
)


class CutShort(UserError):
    """A file that ends before its first record: a service was killed as it began it."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What records are of: the model, by everything that its answers depend on."""

    model: str  # the name that it is served under
    architecture: str
    fingerprint: str  # Classifier.fingerprint
    step: int | None  # of the checkpoint
    labels: tuple[str, ...]
    several_labels: bool
    calibrated: bool  # whether a temperature was fitted
    features: int  # of the embedding, of which the projection is
    seed: int = 0  # of the projection

    def to_line(self) -> bytes:
        """Returns the line that a file of records begins with."""
        content = json.dumps(dataclasses.asdict(self), separators=(",", ":"))
        return b"%s %d %s\n" % (_MAGIC, FORMAT, content.encode())


@dataclass(frozen=True, kw_only=True, eq=False)
class Records:
    """What a file, or several of one model, hold."""

    about: About
    rows: np.ndarray  # of RECORD
    notes: tuple[str, ...] = ()  # what was amiss

    def __len__(self) -> int:
        return len(self.rows)


@cache
def projection(features: int, seed: int) -> Float32[np.ndarray, "features projected"]:
    """Returns the matrix that embeddings are projected by: normal numbers, which about keep distances.

    Johnson & Lindenstrauss 1984; the same for the same number of features and seed, wherever it is drawn.
    """
    drawn = np.random.Generator(np.random.PCG64(seed)).standard_normal((features, PROJECTED))
    return (drawn / np.sqrt(PROJECTED)).astype(np.float32)


def read_file(path: Path) -> Records:
    """Reads one file, as far as it is whole.

    Raises:
        CutShort: if it holds no record.
        UserError: if it cannot be read, or is none of this format.
    """
    try:
        with path.open("rb") as file:
            line = file.readline(_LONGEST_HEADER)
            about = _parse(line, path)
            content = file.read()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its name and permissions") from error
    whole, rest = divmod(len(content), RECORD.itemsize)
    rows = np.frombuffer(content, RECORD, whole)
    notes = []
    if rest:
        notes.append(f"{path.name} is cut short in its last record, and read up to there ({whole:,} records)")
    if (damaged := _damaged(rows, about)).any():
        rows = rows[~damaged]
        notes.append(f"{path.name} has {int(damaged.sum()):,} damaged records, which are left out")
    return Records(about=about, rows=rows, notes=tuple(notes))


def _damaged(rows: np.ndarray, about: About) -> np.ndarray:
    classes = len(about.labels)
    wrong = (rows["label"] < 0) | (rows["label"] >= classes) | (rows["truth"] < UNKNOWN) | (rows["truth"] >= classes)
    return wrong | ~np.isfinite(rows["time"]) | ~((rows["confidence"] >= 0) & (rows["confidence"] <= 1.001))


def _parse(line: bytes, path: Path) -> About:
    magic, _, rest = line.partition(b" ")
    number, _, content = rest.partition(b" ")
    if magic != _MAGIC or not number.isdigit():
        found = quoted(line[:40].decode("latin-1")) if line else "nothing"
        raise UserError(
            f"{path} is no file of records: it begins with {found}, not with {_MAGIC.decode()}. Give with --log the "
            "folder that python -m jaxnets.serve --record wrote to"
        )
    if int(number) != FORMAT:
        raise UserError(
            f"{path} has records of format {int(number)}, and this version of jaxnets reads format {FORMAT}: use the "
            "version that wrote it, or record anew"
        )
    if not line.endswith(b"\n"):
        raise CutShort(f"{path} is cut short before its first record: nothing is lost with it, remove it")
    try:
        return _about(json.loads(content))
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path} does not say of which model its records are ({type(error).__name__}: {error}): remove it, or "
            "record anew"
        ) from error


def _about(saved: dict[str, Any]) -> About:
    known = {field.name for field in dataclasses.fields(About)}
    about = About(**{**{key: saved[key] for key in known}, "labels": tuple(map(str, saved["labels"]))})
    if not about.labels or type(about.features) is not int or type(about.seed) is not int:
        raise ValueError("classes, features or seed are missing")
    return about


def joined(each: Sequence[Records]) -> Records:
    """Returns the records of several files of one model, in the order of their times."""
    rows = np.concatenate([one.rows for one in each])
    if len(rows) and (np.diff(rows["time"]) < 0).any():
        rows = rows[np.argsort(rows["time"], kind="stable")]
    return Records(about=each[-1].about, rows=rows, notes=tuple(note for one in each for note in one.notes))
