"""Checkpoints: written in the background with Orbax, read on any hardware, the newest and the best kept."""

import json
import logging
import shutil
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxnets.errors import UserError
from jaxnets.rundir import read_json, write_json
from jaxnets.storage import (
    Place,
    absolute,
    bucket_errors,
    fingerprints,
    in_bucket,
    is_committed,
    make_folder,
    names_in,
    remove_folder,
)
from jaxnets.train.hosts import Hosts, broke_off
from jaxnets.train.step import TrainState, Variables

_log = logging.getLogger(__name__)

KEPT = 2  # newest ones, so that there is one to fall back on
_SPARE = 2**20  # bytes left free beside a checkpoint, for its metadata and the logs
_NONE = -1  # in place of a step
_AMENDED = "amended.json"  # the progress, where it was replaced
_MANIFEST = "files.json"  # size and checksum of each of a checkpoint's files


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands, beside its arrays; saved as JSON."""

    step: int
    evaluation: dict[str, Any] | None = None  # of these weights: split, accuracy, loss, count, …
    best: dict[str, Any] | None = None  # step and accuracy of the best so far on the validation split
    window: dict[str, Any] = field(default_factory=dict)  # sums over the steps since the last row of metrics.jsonl


class Checkpointer:
    """Saves a run's states under `directory`/STEP and finds the newest that can be restored.

    All processes of a run save and restore, each its part; what concerns the directory as a whole, process 0 does.
    """

    def __init__(self, directory: Place, hosts: Hosts | None = None) -> None:
        self._directory = absolute(directory)
        self._hosts = hosts or Hosts()
        if self._hosts.leads:
            make_folder(self._directory)
            for leftover in _unfinished(self._directory):
                remove_folder(leftover)
        self._saver = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(),
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
        )
        self._saving: int | None = None
        self._began = 0.0
        self.slowest = 0.0  # seconds that any save took
        self._best: int | None = None
        self._copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
        self._finite = jax.jit(_all_finite)

    def save(self, state: TrainState, progress: Progress) -> None:
        """Starts writing a copy of the state; the caller may donate the original at once.

        Raises:
            UserError: if the state is not finite, if the save before this one failed, or if the directory is gone.
        """
        self.wait()
        if not in_bucket(self._directory):
            self._check_room(_nbytes(state))
        if not self._finite(state):
            raise UserError(
                f"the weights after step {progress.step} are not finite and were not saved: "
                f"lower config.optimizer.learning_rate, or set config.optimizer.clip_norm"
            )
        self._best = progress.best["step"] if progress.best else None
        self._saving, self._began = progress.step, time.monotonic()
        state = self._copy(state)
        items = {
            "variables": ocp.args.StandardSave(state.variables),
            "optimizer": ocp.args.StandardSave({"step": state.step, "opt_state": state.opt_state}),
            "progress": ocp.args.JsonSave(asdict(progress)),
        }
        if state.ema is not None:
            items["ema"] = ocp.args.StandardSave(state.ema)
        try:
            self._saver.save(self._directory / str(progress.step), args=ocp.args.Composite(**items))
        except (OSError, ValueError) as error:
            if self._hosts.several and broke_off(error):
                raise
            raise self._refusal(error) from error

    def _check_room(self, needed: int) -> None:
        if not self._directory.is_dir():
            raise UserError(f"{self._directory} has gone: something removed it while the run was on; start it again")
        free = shutil.disk_usage(self._directory).free
        if free < needed + _SPARE:  # found out now, a full disk leaves nothing half-written
            raise self._refusal(OSError(f"it needs {needed / 2**20:.1f} MiB, and {free / 2**20:.1f} MiB are free"))

    def amend(self, progress: Progress) -> None:
        """Replaces the progress of a step that is saved, where more was found out about it since.

        Raises:
            UserError: if it could not be written.
        """
        self.wait()
        self._best = progress.best["step"] if progress.best else None
        if self._hosts.leads:
            write_json(self._directory / str(progress.step) / _AMENDED, asdict(progress))

    def wait(self) -> None:
        """Returns when what was saved is on disk, and removes what is neither new nor best.

        Raises:
            UserError: if it could not be written.
        """
        try:
            self._saver.wait_until_finished()
        except (OSError, ValueError) as error:
            if self._hosts.several and broke_off(error):
                raise
            raise self._refusal(error) from error
        self._discard_old()

    def newest(self) -> int | None:
        """Returns the newest step that is safely on disk."""
        self.wait()
        found = steps(self._directory)
        return found[-1] if found else None

    def close(self) -> None:
        self.wait()
        self._saver.close()

    def restore(self, like: TrainState) -> tuple[TrainState, Progress] | None:
        """Returns the newest state that can be read, or None where there is none yet.

        `like` has the shapes and shardings wanted. A checkpoint that cannot be read is said and set aside.

        Raises:
            UserError: if there are checkpoints and none is whole, or the newest whole one does not fit.
        """
        newest = self._hosts.decide("restored step", self._newest_whole)
        if newest == _NONE:
            return None
        path = self._directory / str(newest)
        try:
            state, progress = self._restore(path, like)
        except Exception as error:  # whatever Orbax raises where a checkpoint is whole and yet does not fit
            raise UserError(f"checkpoint {path} cannot be restored ({_first_line(error)})") from error
        if progress.best and progress.best["step"] not in steps(self._directory):
            progress = replace(progress, best=None)
        self._best = progress.best["step"] if progress.best else None
        return state, progress

    def _newest_whole(self) -> int:
        """Returns the newest step that is not damaged, _NONE where there is no checkpoint; sets damaged ones aside."""
        damaged: list[Place] = []
        for step in reversed(steps(self._directory)):
            path = self._directory / str(step)
            try:
                verify(path)
            except ValueError as error:
                _log.warning("checkpoint %s is damaged (%s)", path, error)
                damaged.append(path)
                continue
            for other in damaged:
                _log.warning("going on from step %d; %s is set aside as damaged-%s", step, other.name, other.name)
                aside = other.with_name(f"damaged-{other.name}")
                remove_folder(aside)
                other.rename(aside)
            return step
        if damaged:
            raise UserError(
                f"all checkpoints in {self._directory} are damaged: restore one from a copy, or start again in another "
                f"--workdir"
            )
        return _NONE

    def _seal(self) -> None:
        """Notes what the items consist of; Orbax calls it in its thread, before it commits them."""
        for path in _unfinished(self._directory):
            if path.name.partition(".")[0] == str(self._saving):
                with bucket_errors(path):
                    (path / _MANIFEST).write_text(json.dumps(fingerprints(path)))
        self.slowest = max(self.slowest, time.monotonic() - self._began)

    def _discard_old(self) -> None:
        if not self._hosts.leads:
            return
        saved = steps(self._directory)
        if self._best is not None and self._best not in saved:
            return  # the new best could not be written: the one before is still needed
        for step in saved[:-KEPT]:
            if step != self._best:
                remove_folder(self._directory / str(step))

    def _restore(self, path: Place, like: TrainState) -> tuple[TrainState, Progress]:
        items = {
            "variables": ocp.args.StandardRestore(like.variables),
            "optimizer": ocp.args.StandardRestore({"step": like.step, "opt_state": like.opt_state}),
            "progress": ocp.args.JsonRestore(),
        }
        if like.ema is not None:
            items["ema"] = ocp.args.StandardRestore(like.ema)
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            restored = reader.restore(path, args=ocp.args.Composite(**items))
        state = TrainState(
            step=restored["optimizer"]["step"],
            variables=restored["variables"],
            opt_state=restored["optimizer"]["opt_state"],
            ema=restored["ema"] if like.ema is not None else None,
        )
        return state, _amended(path) or Progress(**restored["progress"])

    def _refusal(self, error: Exception) -> UserError:
        left = steps(self._directory)
        return UserError(
            f"a checkpoint could not be written to {self._directory} ({_first_line(error)}): make room there and run "
            f"the same command again; " + (f"step {left[-1]} is safe" if left else "no earlier one exists")
        )


def steps(directory: Place) -> list[int]:
    """Returns the steps that are saved under `directory`, ascending; half-written ones are left out."""
    return sorted(int(name) for name in names_in(directory) if name.isdecimal() and is_committed(directory / name))


def _unfinished(directory: Place) -> list[Place]:
    """Returns what is being written under `directory`, or was when a run was killed."""
    if in_bucket(directory):
        return [
            directory / name for name in names_in(directory) if name.isdecimal() and not is_committed(directory / name)
        ]
    return [directory / name for name in names_in(directory) if ".orbax-checkpoint-tmp" in name]


def verify(path: Place, item: str = "") -> None:
    """Compares a checkpoint's files, or those of one of its items, with what was noted when they were written.

    Raises:
        ValueError: that names the first file that is missing or differs.
    """
    try:
        with bucket_errors(path):
            noted = json.loads((path / _MANIFEST).read_text())
    except FileNotFoundError:
        raise ValueError(f"{_MANIFEST} is missing") from None
    found = fingerprints(path, item)
    for name, (size, checksum) in noted.items():
        if item and not name.startswith(f"{item}/"):
            continue
        if name not in found:
            raise ValueError(f"{name} is missing")
        size_now, checksum_now = found[name]
        if size_now != size or (checksum_now and checksum and checksum_now != checksum):
            raise ValueError(f"{name} has {size_now} bytes that are not the {size} that were written")


def choose(directory: Place, checkpoint: str | int) -> int:
    """Returns the step that "best", "newest" or a number names.

    Raises:
        UserError: if there is no such checkpoint.
    """
    found = steps(directory)
    if not found:
        raise UserError(f"there is no checkpoint in {directory} yet: train first, or wait for the first to be saved")
    if checkpoint == "newest":
        return found[-1]
    if checkpoint == "best":
        for step in reversed(found):
            try:
                best = read_progress(directory, step).best
            except UserError:
                continue
            return best["step"] if best and best["step"] in found else found[-1]
        return found[-1]
    if str(checkpoint).isdecimal() and int(checkpoint) in found:
        return int(checkpoint)
    saved = ", ".join(map(str, found))
    raise UserError(f"checkpoint must be best, newest or one of the saved steps ({saved}), found {checkpoint!r}")


def read_variables(directory: Place, step: int, weights: str) -> Variables:
    """Returns the variables (or with `weights="ema"` their average, where one was kept) as NumPy arrays.

    Raises:
        UserError: if they cannot be read.
    """
    path = absolute(directory) / str(step)
    item = path / "ema" if weights == "ema" and (path / "ema").is_dir() else path / "variables"
    try:
        verify(path, item.name)
        return read_item(item)
    except Exception as error:  # whatever a damaged file makes Orbax raise
        raise UserError(f"checkpoint {path} cannot be read ({_first_line(error)})") from error


def read_item(item: Place) -> Any:
    """Returns the tree of NumPy arrays in one item of a checkpoint, wherever it was saved."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        shapes = _tree(reader.metadata(item))
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
        return reader.restore(item, args=ocp.args.PyTreeRestore(restore_args=as_numpy))


def read_progress(directory: Place, step: int) -> Progress:
    """Returns the progress of a saved step.

    Raises:
        UserError: if it cannot be read.
    """
    path = absolute(directory) / str(step)
    try:
        if amended := _amended(path):
            return amended
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            return Progress(**reader.restore(path / "progress", args=ocp.args.JsonRestore()))
    except Exception as error:  # whatever a damaged file makes Orbax raise
        raise UserError(f"checkpoint {path} cannot be read ({_first_line(error)})") from error


def _amended(path: Place) -> Progress | None:
    return Progress(**read_json(path / _AMENDED)) if (path / _AMENDED).is_file() else None


def _tree(metadata: Any) -> Any:
    """Returns the tree of array descriptions; where it hangs differs between Orbax releases."""
    for name in ("item_metadata", "tree"):
        metadata = getattr(metadata, name, metadata)
    return metadata


def _nbytes(tree: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def _all_finite(tree: Any) -> jax.Array:
    floating = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in floating]))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
