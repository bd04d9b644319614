"""An index on disk, which is whole at any time.

    DIR/index.json          which generation counts, what model it is of, how it is searched
    DIR/000003/vectors.faiss, paths, files.npy      a generation: vectors, and of each its file, size and time
    DIR/pending/*.npz       vectors that an interrupted building computed, for the next one

A generation is written beside the old one, and counts from the moment that index.json is replaced.
"""

import fcntl
import json
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from jaxnets.engine.backbone import Backbone
from jaxnets.engine.onnx_file import write_bytes
from jaxnets.errors import UserError, quoted
from jaxnets.search import kinds
from jaxnets.search.kinds import Plan

_FORMAT = 1
_HEAD, _VECTORS, _PATHS, _FILES, _PENDING = "index.json", "vectors.faiss", "paths", "files.npy", "pending"
_BAD_ZIP = (OSError, ValueError, KeyError, EOFError, zlib.error)


@dataclass(frozen=True)
class Fingerprint:
    """Whose vectors they are: those of other weights, or of images that are fitted in another way, are incomparable."""

    name: str
    weights: str  # checksum, without the head's
    preprocess: Mapping[str, Any]

    @classmethod
    def of(cls, backbone: Backbone) -> "Fingerprint":
        seen = json.loads(json.dumps(backbone.preprocess.to_json()))
        return cls(backbone.name, backbone.checksum, seen)

    def matches(self, other: "Fingerprint") -> bool:
        return (self.weights, self.preprocess) == (other.weights, other.preprocess)

    def words(self) -> str:
        p = self.preprocess
        return f"{self.name} at {p.get('height')}×{p.get('width')} (weights {self.weights})"


@dataclass(frozen=True)
class Head:
    """What index.json says."""

    generation: str
    model: str  # what it was built with, as it was given
    fingerprint: Fingerprint
    plan: Plan
    count: int
    numbers: int  # of a vector
    size: int  # bytes of the vectors' file


@dataclass(frozen=True)
class Files:
    """The files of an index's vectors, in their order; what comes twice was changed, and the last counts."""

    paths: Sequence[str]
    facts: Int64[np.ndarray, "n 2"]  # size in bytes and time of the last change in nanoseconds

    @property
    def current(self) -> dict[str, int]:
        """The number of the vector that counts, by path."""
        return {path: row for row, path in enumerate(self.paths)}


def facts_of(path: str) -> tuple[int, int]:
    """Returns a file's size and time of its last change; −1 where there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


class Store:
    """The directory of an index."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def head(self) -> Head | None:
        """Returns what index.json says; None where there is none.

        Raises:
            UserError: if it is damaged, or of another version.
        """
        path = self.folder / _HEAD
        if not path.exists():
            return None
        try:
            said = json.loads(path.read_text())
            if said["format"] != _FORMAT:
                raise UserError(
                    f"{path} is of format {quoted(str(said['format']))}, and this version reads {_FORMAT}: update "
                    f"jaxnets, or build the index anew in another folder"
                )
            del said["format"]
            plan, whose = Plan(**said.pop("plan")), Fingerprint(**said.pop("fingerprint"))
            head = Head(plan=plan, fingerprint=whose, **said)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}): build the index anew in another folder") from error
        if not head.generation.isdecimal():
            raise UserError(f"{path} names a generation {quoted(head.generation)}, which is none: build it anew")
        return head

    def read(self, head: Head, *, mapped: bool) -> tuple[Any, Files]:
        """Returns the index of FAISS and its files.

        Raises:
            UserError: if they are damaged or do not go together.
        """
        folder = self.folder / head.generation
        damage = f"the index {self.folder} is damaged"
        remedy = "build it anew in another folder"
        try:
            if (size := (folder / _VECTORS).stat().st_size) != head.size:
                raise UserError(f"{damage}: its vectors take {size:,} bytes, expected {head.size:,}: {remedy}")
            content = (folder / _PATHS).read_bytes()
            facts = np.load(folder / _FILES, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{damage} ({error}): {remedy}") from error
        paths = [os.fsdecode(path) for path in content.split(b"\0")[:-1]]
        index = kinds.read(folder / _VECTORS, mapped=mapped)
        if not len(paths) == len(facts) == index.ntotal == head.count or index.d != head.numbers:
            raise UserError(f"{damage}: {index.ntotal:,} vectors and {len(paths):,} files do not match: {remedy}")
        return index, Files(paths, facts)

    def write(
        self, index: Any, plan: Plan, files: Files, fingerprint: Fingerprint, model: str, before: Head | None
    ) -> Head:
        """Writes a generation and lets it count; what was there before goes then."""
        generation = f"{int(before.generation) + 1 if before else 1:06d}"
        folder = self.folder / generation
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted writing left
        try:
            folder.mkdir(parents=True)
            kinds.write(index, folder / _VECTORS)
            (folder / _PATHS).write_bytes(b"".join(os.fsencode(path) + b"\0" for path in files.paths))
            np.save(folder / _FILES, files.facts)
            for name in (_VECTORS, _PATHS, _FILES):
                _sync(folder / name)
            head = Head(generation, model, fingerprint, plan, index.ntotal, index.d, (folder / _VECTORS).stat().st_size)
            content = {"format": _FORMAT, **asdict(head)}
            write_bytes(self.folder / _HEAD, json.dumps(content, indent=2, ensure_ascii=False).encode())
        except OSError as error:
            raise UserError(f"{folder} cannot be written ({error.strerror}): make room or permission for it") from error
        for other in self.folder.iterdir():
            if other.name.isdecimal() and other.name != generation:
                shutil.rmtree(other, ignore_errors=True)
        shutil.rmtree(self.folder / _PENDING, ignore_errors=True)
        return head

    def keep(self, fingerprint: Fingerprint, paths: Sequence[str], facts: np.ndarray, vectors: np.ndarray) -> None:
        """Keeps vectors for the next building, should this one be interrupted."""
        if len(paths):
            content = BytesIO()
            names = np.frombuffer(b"".join(os.fsencode(path) + b"\0" for path in paths), np.uint8)
            np.savez(content, paths=names, facts=facts, vectors=vectors)
            write_bytes(self.folder / _PENDING / "whose.json", json.dumps(asdict(fingerprint)).encode())
            write_bytes(self.folder / _PENDING / f"{time.time_ns():x}.npz", content.getvalue())

    def pending(self, fingerprint: Fingerprint) -> dict[str, tuple[tuple[int, int], Float32[np.ndarray, " f"]]]:
        """Returns what an interrupted building has kept of this model, by path; what is of another one is removed."""
        folder = self.folder / _PENDING
        found: dict[str, tuple[tuple[int, int], np.ndarray]] = {}
        try:
            whose = Fingerprint(**json.loads((folder / "whose.json").read_text()))
        except (OSError, ValueError, TypeError):
            return found
        if not whose.matches(fingerprint):
            shutil.rmtree(folder, ignore_errors=True)
            return found
        for part in sorted(folder.glob("*.npz")):
            with suppress(*_BAD_ZIP), np.load(part, allow_pickle=False) as kept:
                paths = [os.fsdecode(path) for path in kept["paths"].tobytes().split(b"\0")[:-1]]
                for path, facts, vector in zip(paths, kept["facts"].tolist(), kept["vectors"], strict=True):
                    found[path] = (facts[0], facts[1]), vector
        return found

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other processes from building here at the same time.

        Raises:
            UserError: if one does, or the folder cannot be an index's.
        """
        ours = {_HEAD, _PENDING, ".lock"}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.head() is None:
                others = [
                    entry.name
                    for entry in self.folder.iterdir()
                    if entry.name not in ours and not (entry.name.isdecimal() and len(entry.name) == 6)
                ]
                if others:
                    raise UserError(
                        f"{self.folder} holds other things ({quoted(sorted(others)[0])}) and no index: give another "
                        f"--index, so that nothing in it is lost"
                    )
            lock = open(self.folder / ".lock", "w")  # noqa: SIM115
        except OSError as error:
            raise UserError(f"{self.folder} can be no index's folder ({error.strerror}): give another") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(f"another process is building {self.folder}: wait for it, or stop it") from None
            yield


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
