"""A folder of records as the service writes it: what is in it, and what of that falls into a window of time."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from jaxnets.errors import UserError, nearest
from jaxnets.monitor.records import SUFFIX, About, CutShort, Records, joined, read_file

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")


def holds_records(folder: Path) -> bool:
    """Tells whether a folder is one of records, or of folders of records."""
    return any(folder.glob(f"*{SUFFIX}")) or any(folder.glob(f"*/*{SUFFIX}"))


def find_log(folder: Path, name: str | None = None, option: str = "--log") -> Path:
    """Returns the folder of one model's records.

    Args:
        folder: that of the model, or the one that `serve --record` was given.
        name: that the model was served under; None where there is only one.
        option: that the messages name.

    Raises:
        UserError: if there is none, or several and no name.
    """
    if not folder.is_dir():
        raise UserError(
            f"{option} {folder} is no folder: give the one that python -m jaxnets.serve --record DIR writes to"
        )
    models = sorted({file.parent.name for file in folder.glob(f"*/*{SUFFIX}")})
    if any(folder.glob(f"*{SUFFIX}")) and name in (None, folder.name):
        return folder
    if not models:
        found = ", ".join(sorted(file.name for file in folder.iterdir())[:5]) or "nothing"
        raise UserError(
            f"there are no records in {option} {folder} (no file *{SUFFIX}, found {found}): give the folder that "
            "python -m jaxnets.serve --record DIR writes to, once it has answered something"
        )
    if name is None and len(models) > 1:
        raise UserError(f"{option} {folder} has records of several models ({', '.join(models)}): say with --name which")
    if name is not None and name not in models:
        raise UserError(f"{option} {folder} has no records of {name!r}{nearest(name, models)}: {', '.join(models)}")
    return folder / (name or models[0])


def read_log(folder: Path, about: About | None = None) -> Records:
    """Returns all records of one model's folder, in the order of their times.

    Args:
        folder: as `find_log` returns it.
        about: of the model that is meant; of others the records are left out, and a note says so. None: the newest.

    Raises:
        UserError: if a file is of another format, or none is of the model.
    """
    files = sorted(folder.glob(f"*{SUFFIX}"))
    each, notes = [], []
    for file in files:
        try:
            each.append(read_file(file))
        except CutShort:
            notes.append(f"{file.name} is cut short before its first record, and left out")
    if not each:
        raise UserError(f"there is no whole record in {folder}: let the service answer first")
    fingerprint = each[-1].about.fingerprint if about is None else about.fingerprint
    seed = each[-1].about.seed if about is None else about.seed
    ours = [one for one in each if one.about.fingerprint == fingerprint and one.about.seed == seed]
    if not ours:
        raise UserError(_other_model(folder, each, about))
    if others := sum(len(one) for one in each) - sum(len(one) for one in ours):
        notes.append(f"{others:,} records of other weights, or of another calibration, are left out")
    found = joined(ours)
    return replace(found, notes=(*notes, *found.notes))


def _other_model(folder: Path, each: Sequence[Records], about: About | None) -> str:
    found = each[-1].about
    assert about is not None  # the newest is of the newest
    return (
        f"the records in {folder} are of {_said(found)}, and the reference is of {_said(about)}: give the run that "
        "is served as --reference, at the same --checkpoint. One that was calibrated, or trained on, since then must "
        "be served anew"
    )


def _said(about: About) -> str:
    step = "" if about.step is None else f" at step {about.step}"
    return f"{about.architecture}{step}, {len(about.labels)} classes ({about.fingerprint})"


def parse_length(text: str) -> float:
    """Returns the seconds of `90s`, `30m`, `1h`, `7d` or `2w`.

    Raises:
        UserError: if it is none of these.
    """
    found = _LENGTH.fullmatch(text.strip().lower())
    if not found or not float(found[1]) > 0:
        raise UserError(f"--window must be a length like 90s, 30m, 1h, 7d or 2w, found {text!r}")
    return float(found[1]) * _UNITS[found[2]]


def parse_time(text: str, option: str) -> float:
    """Returns seconds since 1970 of a time as ISO 8601 has it, UTC where it says nothing else, or of such seconds.

    Raises:
        UserError: if it is none.
    """
    try:
        return float(text)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise UserError(
            f"{option} must be a time like 2026-11-26T14:00 (UTC) or 2026-11-26T14:00+01:00, or seconds since 1970, "
            f"found {text!r}"
        ) from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def shown(time: float) -> str:
    """Returns a time as people read it, UTC."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S")


def cut(records: Records, length: float | None, since: float | None, until: float | None) -> Records:
    """Returns the records of a window.

    Args:
        records: in the order of their times.
        length: seconds up to the latest record before `until`; None: all.
        since: the earliest time, seconds since 1970; None: any.
        until: the time before which they are; None: any.
    """
    times = records.rows["time"]
    end = len(times) if until is None else int(np.searchsorted(times, until))
    start = 0 if since is None else int(np.searchsorted(times, since))
    if length is not None and end:
        start = max(start, int(np.searchsorted(times, times[end - 1] - length, "right")))
    return replace(records, rows=records.rows[min(start, end) : end])
