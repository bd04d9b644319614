"""How often a window's answers are right: expected from their confidence, and real where labels have come."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jaxnets.errors import UserError, nearest, quoted
from jaxnets.evaluate.intervals import QUANTILE, Interval, wilson
from jaxnets.monitor.records import UNKNOWN, About, Records

_FEW = 50  # images of a reference whose class is known, below which its confidence is taken as it is
_ID = re.compile(r"[0-9a-fA-F]{16}")


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    share: float
    interval: Interval  # to 95 %, as far as chance alone goes
    count: int  # images that it is of
    how: str  # it was found, in words

    def to_json(self) -> dict[str, Any]:
        return {"share": self.share, **self.interval._asdict(), "count": self.count, "how": self.how}


def right(rows: np.ndarray) -> Bool[np.ndarray, " n"]:
    """Returns of records whose class is known whether the most probable one is it."""
    return rows["label"] == rows["truth"]


def known(records: Records) -> np.ndarray:
    """Returns the records whose class is known."""
    return records.rows[records.rows["truth"] != UNKNOWN]


def real(records: Records) -> Accuracy | None:
    """Returns the accuracy on those records whose class is known; None without any."""
    rows = known(records)
    if not len(rows) or records.about.several_labels:
        return None
    hits = int(right(rows).sum())
    return Accuracy(share=hits / len(rows), interval=wilson(hits, len(rows)), count=len(rows), how="labels")


def expected(reference: Records, window: Records) -> Accuracy | None:
    """Returns how many answers of a window should be right, by how sure they are; None with several labels an image.

    Where the reference knows the right classes, the confidence of its answers is first made what it should be by an
    isotonic regression (Zadrozny & Elkan 2002), so that a model without a temperature is read rightly. It holds for
    drift that the confidence notices: a model that is surely wrong about a new kind of image looks better than it is.
    """
    if window.about.several_labels or not len(window):
        return None
    confidence = window.rows["confidence"].astype(np.float64)
    rows = known(reference)
    if len(rows) >= _FEW:
        chances = _isotonic(rows["confidence"].astype(np.float64), right(rows), confidence)
        how = f"confidence, calibrated on {len(rows):,} images of the reference"
    else:
        chances = confidence
        how = (
            "confidence at the model's temperature" if window.about.calibrated else "confidence that nobody calibrated"
        )
    share, deviation = float(chances.mean()), float(np.sqrt((chances * (1 - chances)).sum())) / len(chances)
    interval = Interval(max(share - QUANTILE * deviation, 0.0), min(share + QUANTILE * deviation, 1.0))
    return Accuracy(share=share, interval=interval, count=len(chances), how=how)


def _isotonic(
    confidence: Float[np.ndarray, " m"], hits: Bool[np.ndarray, " m"], asked: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(confidence, hits.astype(np.float64))
    return fitted.predict(asked)


def with_labels(records: Records, file: Path) -> tuple[Records, str]:
    """Returns records with the classes that a table knows, and a note on it.

    Args:
        records: of the log.
        file: CSV with the columns `id`, as the service answered it, and `label`, a class by name or number.

    Raises:
        UserError: if it cannot be read, lacks a column, or names what is no class or no number of an answer.
    """
    ids, truths = _read_labels(file, records.about)
    order = np.argsort(records.rows["id"], kind="stable")
    ordered = records.rows["id"][order]
    places = np.searchsorted(ordered, ids)
    found = np.zeros(len(ids), bool)
    inside = places < len(ordered)
    found[inside] = ordered[places[inside]] == ids[inside]
    rows = records.rows.copy()
    rows["truth"][order[places[found]]] = truths[found]
    note = f"{int(found.sum()):,} of the {len(ids):,} labels in {file.name} are of records of this model"
    if len(ids) and not found.any():
        raise UserError(
            f"--labels {file}: none of its {len(ids):,} ids is of a record in the log: take them from the service's "
            "answers (predictions[…].id) while it records"
        )
    return Records(about=records.about, rows=rows, notes=records.notes), note


def _read_labels(file: Path, about: About) -> tuple[np.ndarray, np.ndarray]:
    wanted = "a CSV with the columns id and label"
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened)
            fields = {(name or "").strip().lower(): name for name in reader.fieldnames or []}
            if not {"id", "label"} <= set(fields):
                found = ", ".join(map(quoted, filter(None, reader.fieldnames or []))) or "nothing"
                raise UserError(f"--labels {file} must be {wanted}, found {found}")
            pairs = [((row[fields["id"]] or "").strip(), (row[fields["label"]] or "").strip()) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"--labels {file} cannot be read ({error}): give {wanted}") from error
    numbers = {name: number for number, name in reversed(list(enumerate(about.labels)))}
    ids, truths = np.zeros(len(pairs), np.uint64), np.zeros(len(pairs), np.int32)
    for line, (text, label) in enumerate(pairs):
        if not _ID.fullmatch(text):
            raise UserError(
                f"--labels {file}, line {line + 2}: an id has 16 hexadecimal digits, found {quoted(text)}: take it "
                "from the service's answer"
            )
        number = numbers.get(label, int(label) if label.isdecimal() and len(label) < 9 else -1)
        if not 0 <= number < len(about.labels):
            raise UserError(
                f"--labels {file}, line {line + 2}: there is no class {quoted(label)}{nearest(label, about.labels)}: "
                f"the model has {len(about.labels)} ({', '.join(about.labels[:3])}, …)"
            )
        ids[line], truths[line] = int(text, 16), number
    first, place = np.unique(ids, return_index=True)
    if (other := truths != truths[place[np.searchsorted(first, ids)]]).any():
        line = int(np.flatnonzero(other)[0])
        raise UserError(
            f"--labels {file}, line {line + 2}: {pairs[line][0]} has had another label before, found "
            f"{quoted(pairs[line][1])}: leave one of them out"
        )
    return ids, truths
