"""What a run says when the disk or the profiler gets in its way."""

import resource
import shutil
import subprocess
import sys

import pytest

from jaxnets.errors import UserError
from jaxnets.train.checkpoint import steps
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from tests.conftest import environment
from tests.train.runs import short


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def test_a_checkpoint_that_cannot_be_written_gets_one_message(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "jaxnets.main", "--config", "digits", "--workdir", tmp_path / "run"),
            *("--config.batch_size=16", "--config.steps=4"),
        ],
        env={**environment(), "JAX_ENABLE_COMPILATION_CACHE": "false"},
        preexec_fn=limit_file_size,  # as a full disk: writing stops with an error
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert "error: a checkpoint could not be written to" in done.stderr
    assert "run the same command again" in done.stderr
    assert steps(tmp_path / "run" / "checkpoints") == []


def test_a_work_directory_that_goes_away_gets_one_message(tmp_path, one_device, monkeypatch):
    class Remover(Display):
        def update(self, step, loss, accuracy, images_per_second):
            shutil.rmtree(tmp_path / "run", ignore_errors=True)

    with pytest.raises(UserError, match=r"(cannot|could not) be written"):
        train(short(), tmp_path / "run", Remover(), one_device)


def test_the_profiler_records_the_steps_asked_for(tmp_path, one_device):
    train(short(steps=14, profile_steps=2), tmp_path, Display(), one_device)
    assert list((tmp_path / "tensorboard").rglob("*.xplane.pb"))
