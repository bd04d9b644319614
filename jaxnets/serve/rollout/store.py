"""Where the states of names are kept: in this process, or in one small file that several processes agree on."""

import fcntl
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxnets.errors import UserError
from jaxnets.serve.rollout.state import State

_log = logging.getLogger(__name__)

FILE, _LOCK = "rollout.json", "rollout.lock"
_FORMAT = 1

States = dict[str, State]  # by the names that are asked


class Store:
    """States by name, changed by one process at a time.

    Where the file cannot be read or written while it serves, this process goes on with what it knows.

    Args:
        folder: of the file; None: there is none, and a restart begins anew.

    Raises:
        UserError: if the folder cannot be written to, or the file is none of ours.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._states: States = {}
        self._text: str | None = None  # of the file, as it was read or written at last
        self._lock = threading.Lock()
        self._failing = False
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._read()
        except OSError as error:
            raise UserError(
                f"--state {folder}: nothing can be kept there ({error.strerror}): make room or permission for it, or "
                "give another folder"
            ) from error

    def change(self, function: Callable[[States], States]) -> States:
        """Returns the states after a function has changed them, which no other process does meanwhile."""
        with self._lock:
            if self._folder is None:
                self._states = function(self._states)
                return self._states
            done = False
            try:
                with self._locked():
                    self._read()
                    self._states, done = function(self._states), True
                    self._write()
            except (OSError, UserError) as error:
                if not self._failing:
                    _log.warning("%s: until this is mended, this process decides alone: %s", self._folder, error)
                self._failing = True
                if not done:
                    self._states = function(self._states)
            else:
                self._failing = False
            return self._states

    @contextmanager
    def _locked(self) -> Iterator[None]:
        assert self._folder is not None
        with open(self._folder / _LOCK, "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _read(self) -> None:
        assert self._folder is not None
        file = self._folder / FILE
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        except ValueError as error:
            raise UserError(_not_ours(file, error)) from error
        if text == self._text:
            return
        try:
            saved = json.loads(text)
            if saved["format"] != _FORMAT:
                raise ValueError(f"format {saved['format']!r}, expected {_FORMAT}")
            self._states = {name: State.read(each) for name, each in saved["names"].items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(_not_ours(file, error)) from error
        self._text = text

    def _write(self) -> None:
        """Writes what has changed: all of it, or nothing."""
        assert self._folder is not None
        names = {name: state.saved() for name, state in self._states.items()}
        text = json.dumps({"format": _FORMAT, "names": names})
        if text == self._text:
            return
        part = self._folder / f".{FILE}-{os.getpid()}"
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(self._folder / FILE)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        self._text = text


def _not_ours(file: Path, error: Exception) -> str:
    return (
        f"{file} does not say how far models have taken over ({type(error).__name__}: {error}): move it away, and "
        "rollouts begin anew"
    )
