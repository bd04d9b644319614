"""Writes records beside the service: no request waits for the disk, and a full disk loses records, never answers."""

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from jaxnets.errors import UserError
from jaxnets.monitor.observe import Observer
from jaxnets.monitor.records import RECORD, SUFFIX

_log = logging.getLogger(__name__)

_PAUSE = 0.5  # seconds between writes
_WAITING = 32 << 20  # bytes that may wait to be written
_FAREWELL = 5.0  # seconds that the end waits for the last write
_MODE = 0o640  # of files: what is asked of a service is nobody else's business
_KINDS = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp", b"BM": ".bmp"}  # by the first two bytes


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What records may take, for each model."""

    file_bytes: float = 64 << 20
    files: int = 8
    images: int = 0  # uploads that are kept, the latest; none unless it is asked for

    def __post_init__(self) -> None:
        if not 1 << 16 <= self.file_bytes < math.inf:
            raise UserError(
                f"--record-mib must be at least 0.0625 (64 KiB) and finite, found {self.file_bytes / 2**20:g}"
            )
        if self.files < 1 or self.images < 0:
            raise UserError(
                f"--record-files must be at least 1 and --record-images at least 0, found {self.files} and "
                f"{self.images}"
            )


class Answered(NamedTuple):
    """One request, as it waits to be written."""

    observer: Observer
    rows: Float32[np.ndarray, "n columns_and_more"]  # Observer.rows
    sizes: Sequence[tuple[int, int]]  # height and width of each image
    ids: np.ndarray  # uint64 [n]
    time: float  # seconds since 1970
    latency: float  # seconds
    images: Sequence[bytes]  # the uploads, where they are kept

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes + 64 * len(self.rows) + sum(map(len, self.images))


class Recorder:
    """Takes what was answered, and has a thread write it.

    Args:
        folder: which gets one of its own for each model.
        bounds: of the files.
        written: is called with a model's name and how many records were written.
        dropped: likewise, of records that were lost since the disk is full or too slow.

    Raises:
        UserError: if the folder cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        bounds: Bounds | None = None,
        written: Callable[[str, int], None] = lambda name, count: None,
        dropped: Callable[[str, int], None] = lambda name, count: None,
    ) -> None:
        self.folder, self.bounds = folder, bounds or Bounds()
        self._written, self._dropped = written, dropped
        self._waiting: deque[Answered] = deque()
        self._bytes = 0
        self._files: dict[str, _File] = {}
        self._failing: set[str] = set()  # models whose latest records could not be written
        self._lock, self._end = threading.Lock(), threading.Event()
        # 32 bits of this process, 32 that count.
        self._next = int.from_bytes(os.urandom(4), "big") << 32
        _check_writable(folder)
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def ids(self, count: int) -> np.ndarray:
        """Returns numbers for so many answers, which no others have."""
        with self._lock:
            first, self._next = self._next, self._next + count
        return np.arange(first, first + count, dtype=np.uint64)

    def add(self, answered: Answered) -> None:
        """Takes a request, or drops it where too many wait."""
        size = answered.nbytes
        with self._lock:
            fits = self._bytes + size <= _WAITING and not self._end.is_set()
            if fits:
                self._bytes += size
                self._waiting.append(answered)
        if not fits:
            self._dropped(answered.observer.about.model, len(answered.rows))

    def close(self) -> None:
        """Writes what waits, and ends."""
        self._end.set()
        self._thread.join(_FAREWELL)
        if self._thread.is_alive():
            _log.warning("%s: the last records were not written in %g s", self.folder, _FAREWELL)

    def _run(self) -> None:
        while not self._end.wait(_PAUSE):
            self._write()
        self._write()

    def _write(self) -> None:
        with self._lock:
            taken = list(self._waiting)
            self._waiting.clear()
        if not taken:
            return
        by_model: dict[int, list[Answered]] = {}  # in the order in which they were answered
        for one in taken:
            by_model.setdefault(id(one.observer), []).append(one)
        for each in by_model.values():
            name, count = each[0].observer.about.model, sum(len(one.rows) for one in each)
            try:
                self._file_of(each[0].observer).write(_records(each), each)
            except Exception as error:  # a full disk, a folder that may not be written to any more: the service goes on
                if name not in self._failing:
                    _log.warning("%s: records are lost until this is mended: %s", name, error)
                self._failing.add(name)
                self._dropped(name, count)
            else:
                self._failing.discard(name)
                self._written(name, count)
        with self._lock:
            self._bytes -= sum(one.nbytes for one in taken)

    def _file_of(self, observer: Observer) -> "_File":
        """Returns the file that a model's records go to; another one when other weights answer."""
        name = observer.about.model
        if name not in self._files or self._files[name].observer is not observer:
            self._files[name] = _File(self.folder / name, observer, self.bounds)
        return self._files[name]


def _records(each: Sequence[Answered]) -> np.ndarray:
    counts = [len(one.rows) for one in each]
    return each[0].observer.records(
        np.concatenate([one.rows for one in each]),
        [size for one in each for size in one.sizes],
        ids=np.concatenate([one.ids for one in each]),
        times=np.repeat([one.time for one in each], counts),
        latencies=np.repeat([one.latency for one in each], counts),
    )


class _File:
    """The newest file of one model; those before it are removed when there are too many."""

    def __init__(self, folder: Path, observer: Observer, bounds: Bounds) -> None:
        self.observer = observer
        self._head = observer.about.to_line()
        self._folder, self._bounds = folder, bounds
        self._path: Path | None = None
        self._size = 0

    def write(self, records: np.ndarray, each: Sequence[Answered]) -> None:
        """Appends records, to a new file where there is no room."""
        at_once = max(int(self._bounds.file_bytes - len(self._head)) // RECORD.itemsize, 1)
        for start in range(0, len(records), at_once):
            content = records[start : start + at_once].tobytes()
            if self._path is None or self._size + len(content) > self._bounds.file_bytes or not self._path.exists():
                self._begin(content)
            else:
                self._append(content, os.O_APPEND)
        if self._bounds.images:
            self._keep_images(each)

    def _begin(self, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        now = time.time_ns()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now // 10**9))
        self._path = self._folder / f"{stamp}-{now % 10**9:09d}-{os.getpid()}{SUFFIX}"
        self._size = 0
        try:
            self._append(self._head + content, os.O_CREAT | os.O_EXCL)
        except OSError:
            self._path.unlink(missing_ok=True)
            self._path = None
            raise
        # By the latest write: other processes may write to theirs.
        _keep_newest(sorted(self._folder.glob(f"*{SUFFIX}"), key=_age), self._bounds.files)

    def _append(self, content: bytes, how: int) -> None:
        """Writes all of it or nothing."""
        assert self._path is not None
        with open(os.open(self._path, os.O_WRONLY | how, _MODE), "wb", buffering=0) as file:
            try:
                if file.write(content) != len(content):
                    raise OSError(f"{self._path} has no room")
            except OSError:
                with suppress(OSError):
                    file.truncate(self._size)
                raise
        self._size += len(content)

    def _keep_images(self, each: Sequence[Answered]) -> None:
        folder = self._folder / "images"
        folder.mkdir(exist_ok=True)
        for one in each[-self._bounds.images :]:
            for number, content in zip(one.ids.tolist(), one.images, strict=False):
                file = folder / f"{as_text(number)}{_KINDS.get(content[:2], '')}"
                with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _MODE), "wb") as opened:
                    opened.write(content)
        kept = sorted((file for file in folder.iterdir() if file.is_file()), key=_age)
        _keep_newest(kept, self._bounds.images)


def as_text(number: int) -> str:
    """Returns a record's number as answers and tables of labels have it."""
    return f"{number:016x}"


def _age(file: Path) -> tuple[int, str]:
    try:
        return file.stat().st_mtime_ns, file.name
    except FileNotFoundError:  # another process has removed it meanwhile
        return 0, file.name


def _keep_newest(ordered: Sequence[Path], most: int) -> None:
    for file in ordered[: max(len(ordered) - most, 0)]:
        file.unlink(missing_ok=True)


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-test-{os.getpid()}"
        probe.write_bytes(b"\0")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"--record {folder}: records cannot be written there ({error.strerror}): make room or permission for it, "
            "or give another folder"
        ) from error
