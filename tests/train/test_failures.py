"""What a run says when the disk or the profiler gets in its way."""

import logging
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from jaxnets.cli import _says_something
from jaxnets.errors import UserError
from jaxnets.run.checkpoints import Progress, steps
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from jaxnets.train.saver import Checkpointer
from jaxnets.train.step import TrainState
from tests.train.runs import assert_same_run, short


@contextmanager
def no_file_above(nbytes: int) -> Iterator[None]:
    """As on a full disk, writing more stops with an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_cannot_be_written_gets_one_message(tmp_path, monkeypatch):
    logged: list[logging.LogRecord] = []
    monkeypatch.setattr(logging.getLogger("absl"), "handle", logged.append)
    weights = jax.random.normal(jax.random.key(0), (200, 200))  # 160 kB, of which compression leaves most
    state = TrainState(step=jnp.int32(1), params={"w": weights}, batch_stats={}, opt_state={}, ema=None)
    checkpointer = Checkpointer(tmp_path)
    with no_file_above(100_000), pytest.raises(UserError) as refused:
        save_and_wait(checkpointer, state)
    assert logged  # by Orbax, with tracebacks
    assert not any(map(_says_something, logged))
    assert f"a checkpoint could not be written to {tmp_path} (File too large): make room" in str(refused.value)
    assert "run the same command again; no earlier one exists" in str(refused.value)
    assert steps(tmp_path) == []
    save_and_wait(checkpointer, state)  # there is room again
    assert steps(tmp_path) == [1]


def save_and_wait(checkpointer: Checkpointer, state: TrainState) -> None:
    checkpointer.save(state, Progress(step=1))
    checkpointer.wait()


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path, one_device, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    with pytest.raises(UserError, match=r"could not be written to .* \(it needs 0.6 MiB, and 1.0 MiB are free\)"):
        train(short(), tmp_path, Display(), one_device)
    assert not any((tmp_path / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory, one_device):
    workdir = tmp_path_factory.mktemp("runs") / "whole [v2] ** \\"  # any name will do
    train(short(eval_every_steps=2), workdir, Display(), one_device)
    return workdir


def test_a_disk_that_fills_up_leaves_the_last_good_state_to_go_on_from(tmp_path, one_device, monkeypatch, whole):
    room = iter([2**40])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=next(room, 0)))
    with pytest.raises(UserError, match=r"could not be written .* step 2 is safe"):
        train(short(eval_every_steps=2), tmp_path, Display(), one_device)
    monkeypatch.undo()
    assert steps(tmp_path / "checkpoints") == [2]
    assert train(short(eval_every_steps=2), tmp_path, Display(), one_device).finished
    assert_same_run(whole, tmp_path)


def test_a_damaged_newest_checkpoint_costs_its_steps_and_no_more(tmp_path, one_device, whole):
    shutil.copytree(whole, tmp_path / "run")
    saved = tmp_path / "run" / "checkpoints"
    for file in (saved / "4" / "variables" / "d").iterdir():
        os.truncate(file, file.stat().st_size // 2)
    assert train(short(eval_every_steps=2), tmp_path / "run", Display(), one_device).finished
    assert (saved / "damaged-4").is_dir()
    assert_same_run(whole, tmp_path / "run")


def test_a_work_directory_that_goes_away_gets_one_message(tmp_path, one_device, monkeypatch):
    class Remover(Display):
        def update(self, step, loss, accuracy, images_per_second):
            shutil.rmtree(tmp_path / "run", ignore_errors=True)

    with pytest.raises(UserError, match=r"has gone|(cannot|could not) be written"):
        train(short(), tmp_path / "run", Remover(), one_device)


def test_the_profiler_records_the_steps_asked_for(tmp_path, one_device):
    train(short(steps=14, profile_steps=2), tmp_path, Display(), one_device)
    assert list((tmp_path / "tensorboard").rglob("*.xplane.pb"))
