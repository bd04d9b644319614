"""tracking.json of a run directory: which remote runs show it, and what each of them has got."""

import dataclasses
import threading
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jaxnets.errors import UserError
from jaxnets.run.directory import read_json, write_json
from jaxnets.run.storage import Place, bucket_errors, kind_of
from jaxnets.track.tracker import Kept


class Ledger:
    """Reads the file, and writes it anew with each change; threads may share one.

    Raises:
        UserError: if it cannot be read, or was not written by this.
    """

    def __init__(self, path: Place) -> None:
        self._path, self._lock = path, threading.Lock()
        self._tags: dict[str, str] = {}
        self._kept: dict[str, Kept] = {}
        try:
            with bucket_errors(path):
                there = kind_of(path)
            if there:
                saved = read_json(path)
                self._tags = dict(saved["tags"])
                self._kept = {place: Kept(**each) for place, each in saved["places"].items()}
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{path} cannot be read ({error}): restore it from a copy, or remove it to begin remote runs anew"
            ) from error

    @property
    def tags(self) -> Mapping[str, str]:
        """Facts of the newest session, which only it could know."""
        return self._tags

    @property
    def places(self) -> list[str]:
        return list(self._kept)

    def note(self, tags: Mapping[str, str]) -> None:
        with self._lock:
            self._tags = dict(tags)
            self._write()

    def kept(self, place: str) -> Kept:
        """Returns what is known of a place's run; of one that is new there, its key is written down first."""
        with self._lock:
            if place not in self._kept:
                self._kept[place] = Kept(key=uuid.uuid4().hex[:16])
                self._write()
            return self._kept[place]

    def keep(self, place: str, **changed: Any) -> Kept:
        with self._lock:
            self._kept[place] = replace(self._kept[place], **changed)
            self._write()
            return self._kept[place]

    def _write(self) -> None:
        places = {place: dataclasses.asdict(each) for place, each in self._kept.items()}
        write_json(self._path, {"format": 1, "tags": self._tags, "places": places})
