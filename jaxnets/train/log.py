"""What a run says of itself: metrics.jsonl in the run directory, and the same for trackers."""

import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jaxnets.errors import UserError
from jaxnets.run.curves import read_rows
from jaxnets.run.directory import RunDirectory, finite
from jaxnets.run.storage import bucket_errors, in_bucket, kind_of, upload
from jaxnets.track.sender import PATIENCE, Sender
from jaxnets.track.tensorboard import TensorBoard
from jaxnets.track.tracker import Ended

_log = logging.getLogger(__name__)

_PUBLISHED_EVERY = 30.0  # seconds, and before each checkpoint


class NoLog:
    """What the processes write that do not keep the run's log."""

    def write(self, step: int, epoch: float, values: Mapping[str, Any]) -> None: ...

    def publish(self, step: int | None = None) -> None:
        """Makes sure that whoever reads the run finds what was written so far.

        With `step` none of it will come again, once the checkpoint of that step is there.
        """

    def close(self, ended: Ended = "finished", why: str = "") -> None: ...


class RunLog(NoLog):
    """Appends rows to metrics.jsonl and to TensorBoard's event files, and lets senders read them for other trackers."""

    def __init__(self, run: RunDirectory, resumed_step: int, *, evaluated: bool = True) -> None:
        """Rows past `resumed_step`, and unless it is `evaluated` those of its evaluation, will come again.

        They are removed first. In a bucket nothing can be appended to: there, `publish` copies what lies in a
        directory of this machine.
        """
        self._run, self._own = run, TemporaryDirectory() if in_bucket(run.path) else None
        folder = Path(self._own.name) if self._own else Path(run.path)
        self.path, self.tensorboard = folder / "metrics.jsonl", folder / "tensorboard"
        self._closed = False
        self._senders: Sequence[Sender] = ()
        self.written = 0  # rows, that this session has written
        self._lock = threading.Lock()  # between what publishes files and what writes them in another thread
        self._published: dict[Path, int] = {}  # sizes of files that a bucket has
        self._next = time.monotonic() + _PUBLISHED_EVERY
        try:
            if self._own:
                with bucket_errors(run.path):
                    if kind_of(run.metrics):
                        self.path.write_bytes(run.metrics.read_bytes())
            self._lines = _keep_rows(self.path, resumed_step, evaluated)
            self._rows = self.path.open("a", encoding="utf-8")
            self._tensorboard = TensorBoard(self.tensorboard, resumed_step)
        except OSError as error:
            raise self._refusal(error) from error

    def track(self, senders: Sequence[Sender]) -> None:
        """Lets `senders` send what is written, from now on."""
        self._senders = senders
        for sender in senders:
            sender.begin()

    def write(self, step: int, epoch: float, values: Mapping[str, Any]) -> None:
        row = finite({"step": step, "epoch": round(epoch, 4), "time": round(time.time(), 3), **values})
        try:
            self._rows.write(json.dumps(row) + "\n")
            self._rows.flush()
            self.written += 1
            self._lines += 1
            self._tensorboard.rows([row])
        except OSError as error:
            raise self._refusal(error) from error
        if time.monotonic() > self._next:
            try:
                self.publish()
            except UserError as error:  # a network that comes back; before a checkpoint it has to work
                _log.warning("%s", error)
                self._next = time.monotonic() + _PUBLISHED_EVERY

    def publish(self, step: int | None = None) -> None:
        if step is not None:
            for sender in self._senders:
                sender.covered(self._lines, step)
        if self._own is None:
            return
        root = Path(self._own.name)
        try:
            with self._lock:
                for file in root.rglob("*"):
                    size = file.stat().st_size
                    if file.is_file() and self._published.get(file) != size:
                        upload(file, self._run.path / file.relative_to(root).as_posix())
                        self._published[file] = size
        except OSError as error:
            raise self._refusal(error) from error
        self._next = time.monotonic() + _PUBLISHED_EVERY

    def write_file(self, name: str, content: bytes) -> None:
        """Writes a file of the run directory, whole; into a bucket it comes with the next `publish`.

        Raises:
            OSError: if it cannot be written, or the log is closed.
        """
        with self._lock:
            if self._closed:
                raise OSError("the session has ended")
            file, temporary = self.path.with_name(name), self.path.with_name(f".{name}")
            temporary.write_bytes(content)
            temporary.replace(file)
            self._published.pop(file, None)  # which may have as many bytes

    def image(self, name: str, png: bytes, step: int) -> None:
        """Puts an image among those of TensorBoard."""
        with self._lock:
            if not self._closed:
                self._tensorboard.image(name, png, step)

    def close(self, ended: Ended = "finished", why: str = "") -> None:
        """Writes all to its end. After a session that `failed`, rows may come again that no checkpoint covers."""
        with self._lock:
            self._closed = True
        try:
            self._rows.close()
            self._tensorboard.close()
            self.publish()
        except OSError as error:
            raise self._refusal(error) from error
        finally:
            deadline = time.monotonic() + PATIENCE
            for sender in self._senders:
                sender.close(None if ended == "failed" else self._lines, ended, why, deadline)
            if self._own:
                self._own.cleanup()

    def _refusal(self, error: OSError) -> UserError:
        return UserError(
            f"{self._run.metrics} cannot be written ({error.strerror}): make room or permission there and run "
            f"the same command again; it goes on from the newest checkpoint"
        )


def _keep_rows(path: Path, step: int, evaluated: bool) -> int:
    """Removes rows that will come again; returns how many stay."""

    def stays(row: dict[str, Any]) -> bool:
        return row["step"] < step or (row["step"] == step and (evaluated or "train/loss" in row))

    rows = [row for row in read_rows(path) if stays(row)]
    temporary = path.with_name(f".{path.name}")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    temporary.replace(path)
    return len(rows)
