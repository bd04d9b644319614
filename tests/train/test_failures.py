"""What a run says when the disk or the profiler gets in its way."""

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from jaxnets.errors import UserError
from jaxnets.run.checkpoints import steps
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from tests.conftest import environment
from tests.train.runs import SMALL, assert_same_run, short

# As on a full disk, writing stops with an error: no file may have more than so many blocks of 512 bytes.
LIMITED = ["sh", "-c", 'ulimit -f 200 && exec "$@"', "sh"]


def test_a_checkpoint_that_cannot_be_written_gets_one_message(tmp_path):
    done = subprocess.run(
        [
            *(*LIMITED, sys.executable, "-m", "jaxnets.main", "--config", "digits", "--workdir", tmp_path / "run"),
            *(f"--config.model.name={SMALL}", "--config.batch_size=16", "--config.steps=4"),
            "--config.schedule.warmup_epochs=0",
        ],
        env={**environment(), "JAX_ENABLE_COMPILATION_CACHE": "false"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert "error: a checkpoint could not be written to" in done.stderr
    assert "run the same command again" in done.stderr
    assert steps(tmp_path / "run" / "checkpoints") == []


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path, one_device, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    with pytest.raises(UserError, match=r"could not be written to .* \(it needs 0.6 MiB, and 1.0 MiB are free\)"):
        train(short(), tmp_path, Display(), one_device)
    assert not any((tmp_path / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory, one_device):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
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
