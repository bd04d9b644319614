import io
import json
import math
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from rich.console import Console

import jaxnets
from jaxnets.data.examples import Examples
from jaxnets.errors import UserError
from jaxnets.run.checkpoints import read_progress, steps
from jaxnets.run.directory import RunDirectory
from jaxnets.train.display import Display
from jaxnets.train.evaluation import Evaluator
from jaxnets.train.loop import train
from tests.conftest import environment
from tests.train.runs import SMALL, arrays_of, assert_same_run, rows_of, short, wait_for_rows


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
    assert json.loads(run.config.read_text())["format"] == json.loads(run.model.read_text())["format"] == 3
    assert run.read_config() == short()
    card = run.read_model()
    assert card.name == SMALL == "resnet8_cifar"
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
        ({"model": {"name": "resnet32_cifar"}}, ["config.model.name: 'resnet8_cifar' there, 'resnet32_cifar' now"]),
        ({"seed": 1, "optimizer": {"momentum": 0.5}}, ["config.seed: 0 there, 1 now", "config.optimizer.momentum"]),
        ({"data": {"validation": 0.2}}, ["config.data.validation", "data: the train split has"]),
    ],
)
def test_another_run_in_the_same_directory_is_refused_with_the_differing_keys(finished, one_device, changed, expected):
    with pytest.raises(UserError) as error:
        train(short(**changed), finished, Display(), one_device)
    assert all(text in str(error.value) for text in ["holds another run", *expected])


def test_the_most_accurate_and_of_these_the_surest_is_the_best_and_is_kept(tmp_path, one_device, monkeypatch):
    found = iter([(0.2, 1.0), (0.9, 0.7), (0.9, 0.6), (0.9, 0.8), (0.5, 0.1)])  # accuracy and loss

    def evaluate(self, variables, examples, name):
        accuracy, loss = (0.1, 1.0) if name.endswith("test") else next(found)
        classes = {"class_count": np.full(10, 10), "class_correct": np.full(10, 10 * accuracy)}
        sums = {"count": 100, "loss": 100 * loss, "correct": 100 * accuracy, "top5": 100, **classes}
        return {key: np.asarray(value) for key, value in sums.items()}

    monkeypatch.setattr(Evaluator, "__call__", evaluate)
    train(short(steps=5, eval_every_steps=1), tmp_path, Display(), one_device)
    assert steps(tmp_path / "checkpoints") == [3, 4, 5]
    assert read_progress(tmp_path / "checkpoints", 5).best == {"step": 3, "accuracy": 0.9, "loss": 0.6}


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_checkpoint(tmp_path, one_device):
    config = short(steps=30, eval_every_steps=1, log_every_steps=1, optimizer={"learning_rate": 1e12})
    with pytest.raises(UserError, match=r"the loss of step \d+ is (nan|inf): .* of step \d+ is kept|are not finite"):
        train(config, tmp_path, Display(), one_device)
    saved = steps(tmp_path / "checkpoints")
    assert saved
    assert all(np.isfinite(x).all() for x in arrays_of(tmp_path, saved[-1]).values())
    assert all(math.isfinite(row.get("train/loss", 0)) for row in rows_of(tmp_path))


ENDLESS = [
    f"--config.model.name={SMALL}",
    "--config.batch_size=16",
    "--config.steps=100000",
    "--config.log_every_steps=1",
]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, number, status):
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxnets.main", "--config", "digits", "--workdir", tmp_path / "run", *ENDLESS],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for_rows(process, tmp_path / "run" / "metrics.jsonl", 3)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == status
    [saved] = steps(tmp_path / "run" / "checkpoints")[-1:]
    assert f"stopped and saved at step {saved}; run the same command again to go on" in output


@contextmanager
def interrupted_evaluations(monkeypatch):
    """Has each evaluation begin with Ctrl-C."""
    evaluate = Evaluator.__call__

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        return evaluate(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Evaluator, "__call__", interrupted)
        yield


def test_a_run_stopped_in_an_evaluation_makes_up_for_it(tmp_path, one_device, monkeypatch):
    config = short(steps=4, eval_every_steps=2)
    train(config, tmp_path / "whole", Display(), one_device)
    with interrupted_evaluations(monkeypatch):
        outcome = train(config, tmp_path / "stopped", Display(), one_device)
    assert (outcome.step, outcome.finished, outcome.signal) == (2, False, signal.SIGINT)
    train(config, tmp_path / "stopped", Display(), one_device)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_an_evaluation_made_up_for_at_the_end_is_kept(tmp_path, one_device, monkeypatch):
    config = short(steps=4, eval_every_steps=4)
    train(config, tmp_path / "whole", Display(), one_device)
    with interrupted_evaluations(monkeypatch):
        assert not train(config, tmp_path / "stopped", Display(), one_device).finished
    for _ in range(2):  # the second time there is nothing left to do
        train(config, tmp_path / "stopped", Display(), one_device)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
    kept = [read_progress(tmp_path / run / "checkpoints", 4) for run in ("whole", "stopped")]
    assert kept[0] == kept[1]
    assert kept[0].best["step"] == 4


def test_a_directory_that_another_process_trains_in_is_refused(finished, one_device):
    with RunDirectory(finished).locked(), pytest.raises(UserError, match="another process is training in"):
        train(short(), finished, Display(), one_device)


def test_checkpoints_without_their_config_are_not_taken_over(tmp_path, one_device):
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    with pytest.raises(UserError, match=r"checkpoints but no config.json"):
        train(short(), tmp_path, Display(), one_device)


def test_what_changed_and_may_is_said(finished, one_device, console):
    train(short(log_every_steps=2, data={"placement": "stream"}), finished, Display(console), one_device)
    said = console.export_text()
    assert "config.log_every_steps: 3 there, 2 now" in said
    assert "config.data.placement: 'auto' there, 'stream' now" in said


def test_a_corrupt_test_image_does_not_cost_the_steps_before_it(tmp_path, one_device, monkeypatch):
    config = short(steps=4, eval_every_steps=2, data={"validation": 0.0})
    read_into = Examples.read_into

    def read_but_one(examples, index, out):
        if index == 17 and len(examples) == 360:
            raise UserError("image-17.png is cut off")
        return read_into(examples, index, out)

    monkeypatch.setattr(Examples, "read_into", read_but_one)
    with pytest.raises(UserError, match="is cut off"):
        train(config, tmp_path, Display(), one_device)
    assert steps(tmp_path / "checkpoints") == [2]
    monkeypatch.undo()
    assert train(config, tmp_path, Display(), one_device).finished
    assert [row["step"] for row in rows_of(tmp_path) if "eval/loss" in row] == [2, 4]


def test_an_average_is_evaluated_beside_the_weights_that_it_is_of_and_chooses_the_best(tmp_path, one_device):
    config = short(ema={"decay": 0.5, "warmup": "none"}, steps=4, eval_every_steps=2)
    train(config, tmp_path, Display(), one_device)
    rows = [row for row in rows_of(tmp_path) if "eval/loss" in row]
    assert [{key for key in row if "/raw_" in key} for row in rows] == [{"eval/raw_accuracy", "eval/raw_loss"}] * 2
    found = jaxnets.evaluate(tmp_path, split="validation", checkpoint=4, weights="raw")
    np.testing.assert_allclose(found["loss"], rows[-1]["eval/raw_loss"], rtol=1e-5)
    assert rows[-1]["eval/raw_loss"] != rows[-1]["eval/loss"]
    best = read_progress(tmp_path / "checkpoints", 4).best
    assert best["loss"] == next(row["eval/loss"] for row in rows if row["step"] == best["step"])
    (test,) = [row for row in rows_of(tmp_path) if "test/loss" in row]
    assert not [key for key in test if "raw_" in key]


def test_the_test_split_is_not_read_before_it_is_asked_for(tmp_path, one_device, monkeypatch):
    read = []
    evaluate, load = Evaluator.__call__, Examples.load
    monkeypatch.setattr(Examples, "load", lambda self, *rest: (read.append(self), load(self, *rest))[1])

    def noted(self, variables, examples, name):
        read.append(name)
        return evaluate(self, variables, examples, name)

    monkeypatch.setattr(Evaluator, "__call__", noted)
    train(short(eval_every_steps=2, data={"image_size": 7}), tmp_path, Display(), one_device)
    loaded = [entry for entry in read if isinstance(entry, Examples)]
    sizes = read_sizes(tmp_path)
    assert {len(examples) for examples in loaded} <= {sizes["train"], sizes["validation"]}
    assert read[-2:] == ["evaluation 4 eval", "evaluation 4 test"]


def test_a_metric_of_the_step_is_in_the_training_rows(tmp_path, one_device):
    train(short(train_metrics=("gradient_norm",), steps=3), tmp_path, Display(), one_device)
    row = next(row for row in rows_of(tmp_path) if "train/loss" in row)
    assert 0.01 < row["train/gradient_norm"] < 100


def test_a_canvas_of_another_size_is_cut_to_the_models(tmp_path, one_device):
    train(short(steps=2, data={"image_size": "7x6", "canvas_size": 10}), tmp_path, Display(), one_device)
    card = RunDirectory(tmp_path).read_model()
    assert (card.preprocess.height, card.preprocess.width) == (7, 6)
