"""Writes checkpoints in the background with Orbax, and keeps the newest and the best.

`ocp.CheckpointManager` would keep them by the figures that they were saved with, while ours may be known later
(`amend`), and takes for a leftover, and removes, whatever a bucket does not show at the moment.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from jaxnets.errors import Diverged, UserError
from jaxnets.models.family import Variables
from jaxnets.run.checkpoints import (
    AMENDED,
    MANIFEST,
    Progress,
    amended,
    first_line,
    listing,
    read_progress,
    read_variables,
    steps,
    verify,
)
from jaxnets.run.directory import write_json
from jaxnets.run.storage import (
    Place,
    absolute,
    bucket_errors,
    fingerprints,
    in_bucket,
    is_committed,
    literal,
    make_folder,
    names_in,
    remove_folder,
)
from jaxnets.train.hosts import Hosts, broke_off
from jaxnets.train.step import TrainState

_log = logging.getLogger(__name__)

KEPT = 2  # newest ones, so that there is one to fall back on
_SPARE = 2**20  # bytes left free beside a checkpoint, for its metadata and the logs
_NONE = -1  # in place of a step


class Checkpointer:
    """Saves a run's states under `directory`/STEP and finds the newest that can be restored.

    The `keep` newest stay, and the best. All processes of a run save and restore, each its shards; what concerns the
    directory as a whole, process 0 does.
    """

    def __init__(self, directory: Place, hosts: Hosts | None = None, *, keep: int = KEPT) -> None:
        self._directory, self._keep = absolute(directory), keep
        self._hosts = hosts or Hosts()
        if self._hosts.leads:
            make_folder(self._directory)
            for leftover in _unfinished(self._directory):
                remove_folder(leftover)
        with literal(self._directory):  # that it can be is found out before anything is computed
            pass
        self._saver = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(),
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
        )
        self._link = ExitStack()  # to the directory, while something is being saved
        self._saving: int | None = None
        self._began = 0.0
        self.slowest = 0.0  # seconds that any save lasted
        self._best: int | None = None
        self._copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
        self._finite = jax.jit(_all_finite)

    def save(self, state: TrainState, progress: Progress) -> None:
        """Starts writing a copy of the state; the caller may donate the original at once.

        Raises:
            UserError: if the state is not finite, if the save before this one failed, or if the directory is gone.
        """
        self.wait()
        state = replace(state, teacher=None)
        if not in_bucket(self._directory):
            self._check_room(_nbytes(state))
        if not self._finite(state):
            raise Diverged(
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
        with self._writing():
            directory = self._link.enter_context(literal(self._directory))
            self._saver.save(directory / str(progress.step), args=ocp.args.Composite(**items))

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
            write_json(self._directory / str(progress.step) / AMENDED, asdict(progress))

    def wait(self) -> None:
        """Returns when what was saved is on disk, and removes what is neither new nor best.

        Raises:
            UserError: if it could not be written.
        """
        with self._writing(), self._link:
            self._saver.wait_until_finished()
        with suppress(UserError):  # a bucket that cannot be listed just now: the next save discards more
            self._discard_old()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Makes one message of whatever comes of writing, but for what the end of another process leads to."""
        try:
            yield
        except Exception as error:  # in a bucket, of its libraries
            ours = in_bucket(self._directory) or isinstance(error, OSError | ValueError)
            if not ours or (self._hosts.several and broke_off(error)):
                raise
            raise self._refusal(error) from error

    def newest(self) -> int | None:
        """Returns the newest step that is safely on disk."""
        self.wait()
        found = steps(self._directory)
        return found[-1] if found else None

    def close(self) -> None:
        self.wait()
        self._saver.close()

    def first(self) -> tuple[Variables, Progress] | None:
        """Returns the weights of step 0 and what is known of them, where no later checkpoint is whole.

        They were found without a step (a head that was solved), and no optimizer has a state yet.

        Raises:
            UserError: if they cannot be read.
        """
        if self._hosts.decide("first step", self._newest_whole) != 0:
            return None
        progress = read_progress(self._directory, 0)
        self._best = progress.best["step"] if progress.best else None
        return read_variables(self._directory, 0, "raw"), progress

    def restore(self, like: Callable[[int], TrainState]) -> tuple[TrainState, Progress] | None:
        """Returns the newest state that can be read, or None where there is none yet.

        `like` gives the shapes and shardings of the state after so many steps. A checkpoint that cannot be read is said
        and set aside.

        Raises:
            UserError: if there are checkpoints and none is whole, or the newest whole one does not fit.
        """
        newest = self._hosts.decide("restored step", self._newest_whole)
        if newest == _NONE:
            return None
        path = self._directory / str(newest)
        try:
            state, progress = self._restore(path, like(newest))
        except Exception as error:  # whatever Orbax raises where a checkpoint is whole and yet does not fit
            raise UserError(f"checkpoint {path} cannot be restored ({first_line(error)})") from error
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
            except OSError as error:  # which says nothing of the checkpoint
                raise UserError(f"checkpoint {path} cannot be read ({error.strerror}): try again") from error
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
                    (path / MANIFEST).write_text(json.dumps(fingerprints(path)))
        self.slowest = max(self.slowest, time.monotonic() - self._began)

    def _discard_old(self) -> None:
        if not self._hosts.leads:
            return
        saved = steps(self._directory)
        if self._best is not None and self._best not in saved:
            return  # the new best could not be written: the one before is still needed
        for step in saved[: -self._keep]:
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
        with literal(path) as literally, ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            restored = reader.restore(literally, args=ocp.args.Composite(**items))
        state = TrainState(
            step=restored["optimizer"]["step"],
            params=restored["variables"]["params"],
            batch_stats=restored["variables"].get("batch_stats", {}),
            opt_state=restored["optimizer"]["opt_state"],
            ema=restored["ema"] if like.ema is not None else None,
        )
        return state, amended(path) or Progress(**restored["progress"])

    def _refusal(self, error: Exception) -> UserError:
        try:
            left = steps(self._directory)
        except UserError:
            kept = "what was saved before stays"
        else:
            kept = f"step {left[-1]} is safe" if left else "no earlier one exists"
        return UserError(
            f"a checkpoint could not be written to {self._directory} ({first_line(error)}): make room or permission "
            f"there and run the same command again; {kept}"
        )


def _unfinished(directory: Place) -> list[Place]:
    """Returns what is being written under `directory`, or was when a run was killed."""
    with listing(directory):
        paths = [directory / name for name in names_in(directory)]
        if in_bucket(directory):
            return [path for path in paths if path.name.isdecimal() and not is_committed(path)]
        return [path for path in paths if ".orbax-checkpoint-tmp" in path.name]


def _nbytes(tree: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def _all_finite(tree: Any) -> jax.Array:
    floating = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in floating]))
