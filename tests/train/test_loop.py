import io
import json
import math
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from rich.console import Console

from jaxnets.errors import UserError
from jaxnets.rundir import RunDirectory
from jaxnets.train import loop
from jaxnets.train.checkpoint import read_progress, steps
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from tests.conftest import environment
from tests.train.runs import arrays_of, rows_of, short


@pytest.fixture
def console():
    return Console(record=True, width=200, force_terminal=False, file=io.StringIO())


@pytest.fixture(scope="module")
def finished(tmp_path_factory, one_device):
    workdir = tmp_path_factory.mktemp("run") / "digits"
    train(short(), workdir, Display(), one_device)
    return workdir


def test_a_run_directory_holds_what_the_design_says(finished):
    run = RunDirectory(finished)
    assert json.loads(run.config.read_text())["format"] == json.loads(run.model.read_text())["format"] == 1
    assert run.read_config() == short()
    card = run.read_model()
    assert card.name == "resnet20_cifar"
    assert card.class_names == tuple("0123456789")
    assert {path.name for path in (run.checkpoints / "4").iterdir()} >= {"variables", "optimizer", "progress"}
    assert any(run.tensorboard.iterdir())


def test_rows_say_step_epoch_and_metrics(finished):
    rows = rows_of(finished)
    train_rows = [row for row in rows if "train/loss" in row]
    assert [row["step"] for row in train_rows] == [3, 4]
    assert train_rows[0]["epoch"] == round(3 * 16 / read_sizes(finished)["train"], 4)
    evaluation = next(row for row in rows if "eval/loss" in row)
    assert evaluation["eval/split"] == "validation"
    assert evaluation["eval/count"] == read_sizes(finished)["validation"]
    assert next(row for row in rows if "test/loss" in row)["test/count"] == 360


def read_sizes(workdir):
    return RunDirectory(workdir).read_model().data


def test_a_finished_run_says_so_and_changes_nothing(finished, one_device, console):
    before = {path: path.stat().st_mtime_ns for path in (finished / "checkpoints").rglob("*")}
    outcome = train(short(), finished, Display(console), one_device)
    assert outcome.finished
    assert "is finished: 4 of 4 steps are done, validation accuracy" in console.export_text()
    assert {path: path.stat().st_mtime_ns for path in (finished / "checkpoints").rglob("*")} == before


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"model": {"name": "resnet32_cifar"}}, ["config.model.name: 'resnet20_cifar' there, 'resnet32_cifar' now"]),
        ({"seed": 1, "optimizer": {"momentum": 0.5}}, ["config.seed: 0 there, 1 now", "config.optimizer.momentum"]),
        ({"data": {"validation": 0.2}}, ["config.data.validation", "data: train"]),
    ],
)
def test_another_run_in_the_same_directory_is_refused_with_the_differing_keys(finished, one_device, changed, expected):
    with pytest.raises(UserError) as error:
        train(short(**changed), finished, Display(), one_device)
    assert all(text in str(error.value) for text in ["holds another run", *expected])


def test_the_best_on_validation_is_remembered_and_kept(tmp_path, one_device, monkeypatch):
    accuracies = iter([0.2, 0.9, 0.4, 0.9, 0.5])

    def evaluate(self, state, split):
        from jaxnets.metrics import Sums

        share = next(accuracies) if split == "validation" else 0.1
        empty = np.zeros(10, np.int64)
        return Sums(count=100, loss=1.0, correct=round(100 * share), top5=100, class_count=empty, class_correct=empty)

    monkeypatch.setattr(loop.Evaluator, "__call__", evaluate)
    train(short(steps=5, eval_every_steps=1), tmp_path, Display(), one_device)
    assert steps(tmp_path / "checkpoints") == [2, 4, 5]
    assert read_progress(tmp_path / "checkpoints", 5).best == {"step": 2, "accuracy": 0.9}


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_checkpoint(tmp_path, one_device):
    config = short(steps=30, eval_every_steps=1, log_every_steps=1, optimizer={"learning_rate": 1e12})
    with pytest.raises(UserError, match=r"the loss of step \d+ is (nan|inf): .* of step \d+ is kept|are not finite"):
        train(config, tmp_path, Display(), one_device)
    saved = steps(tmp_path / "checkpoints")
    assert saved
    assert all(np.isfinite(x).all() for x in arrays_of(tmp_path, saved[-1]).values())
    assert all(math.isfinite(row.get("train/loss", 0)) for row in rows_of(tmp_path))


ENDLESS = ["--config.batch_size=16", "--config.steps=100000", "--config.log_every_steps=1"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, number, status):
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxnets.main", "--config", "digits", "--workdir", tmp_path / "run", *ENDLESS],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not (metrics.is_file() and len(metrics.read_bytes().splitlines()) >= 3):
        time.sleep(0.01)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == status
    [saved] = steps(tmp_path / "run" / "checkpoints")[-1:]
    assert f"stopped and saved at step {saved}; run the same command again to go on" in output
