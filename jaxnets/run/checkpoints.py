"""Reads checkpoints on any hardware; `jaxnets.train.saver` writes them."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxnets.errors import UserError
from jaxnets.models.family import Variables
from jaxnets.run.directory import read_json
from jaxnets.run.storage import Place, absolute, bucket_errors, fingerprints, is_committed, kind_of, literal, names_in

AMENDED = "amended.json"  # the progress, where it was replaced
MANIFEST = "files.json"  # size and checksum of each of a checkpoint's files


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands, beside its arrays; saved as JSON."""

    step: int
    evaluation: dict[str, Any] | None = None  # of these weights: split, accuracy, loss, count, …
    best: dict[str, Any] | None = None  # step and figures of the best so far on the validation split
    without_better: int = 0  # evaluations since then
    window: dict[str, Any] = field(default_factory=dict)  # sums over the steps since the last row of metrics.jsonl


def steps(directory: Place) -> list[int]:
    """Returns the steps that are saved under `directory`, ascending; half-written ones are left out.

    Raises:
        UserError: if it cannot be listed.
    """
    with listing(directory):
        return sorted(int(name) for name in names_in(directory) if name.isdecimal() and is_committed(directory / name))


@contextmanager
def listing(directory: Place) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{directory} cannot be read ({error.strerror}): check permissions, and for a bucket the network"
        ) from error


def verify(path: Place, item: str = "") -> None:
    """Compares a checkpoint's files, or those of one of its items, with what was noted when they were written.

    Raises:
        ValueError: that names the first file that is missing or differs.
    """
    try:
        with bucket_errors(path):
            noted = json.loads((path / MANIFEST).read_text())
    except FileNotFoundError:
        raise ValueError(f"{MANIFEST} is missing") from None
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
    try:
        item = path / "ema" if weights == "ema" and kind_of(path / "ema") else path / "variables"
        verify(path, item.name)
        return read_item(item)
    except Exception as error:  # whatever a damaged file makes Orbax raise
        raise UserError(f"checkpoint {path} cannot be read ({first_line(error)})") from error


def read_item(item: Place) -> Any:
    """Returns the tree of NumPy arrays in one item of a checkpoint, wherever it was saved."""
    with literal(item) as path, ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        shapes = _tree(reader.metadata(path))
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
        return reader.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy))


def read_progress(directory: Place, step: int) -> Progress:
    """Returns the progress of a saved step.

    Raises:
        UserError: if it cannot be read.
    """
    path = absolute(directory) / str(step)
    try:
        if found := amended(path):
            return found
        with literal(path / "progress") as item, ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            return Progress(**reader.restore(item, args=ocp.args.JsonRestore()))
    except Exception as error:  # whatever a damaged file makes Orbax raise
        raise UserError(f"checkpoint {path} cannot be read ({first_line(error)})") from error


def amended(path: Place) -> Progress | None:
    return Progress(**read_json(path / AMENDED)) if kind_of(path / AMENDED) else None


def _tree(metadata: Any) -> Any:
    """Returns the tree of array descriptions; where it hangs differs between Orbax releases."""
    for name in ("item_metadata", "tree"):
        metadata = getattr(metadata, name, metadata)
    return metadata


_OF_THE_SYSTEM = re.compile(r"os_error_code='(\d+)'")  # in TensorStore's messages, where it comes last of all


def first_line(error: Exception) -> str:
    """Returns an error's reason on one short line."""
    if found := _OF_THE_SYSTEM.search(str(error)):
        return os.strerror(int(found[1]))
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
