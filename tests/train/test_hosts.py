"""Several processes are one run: they train, evaluate, save and stop as one."""

import json
import shutil
import signal

import jax
import numpy as np
import pytest

from jaxnets.run.checkpoints import steps
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from tests.train import processes
from tests.train.runs import arrays_of, rows_of, short, wait_for_rows

STEPS = 20
OPTIONS = {
    "batch_size": 16,
    "steps": STEPS,
    "dtype": "float64",
    "ema_decay": 0.9,
    "log_every_steps": 5,
    "eval_every_steps": 10,
    "eval_batch_size": 24,  # of which neither 143 nor 360 is a multiple
    "data.validation": 0.1,
    "augment.pad_and_crop.padding": 1,
    "data.image_size": 7,  # not the source's own, so that the images must be read
    "optimizer.learning_rate": 0.01,
    "schedule.warmup_epochs": 0.0,
    "loss.label_smoothing": 0.1,
}


def flags(**changed) -> list[str]:
    return [f"--config.{key}={value}" for key, value in {**OPTIONS, **changed}.items()]


def config():
    """Returns the config that `flags` makes of that of the digits."""
    nested: dict = {}
    for key, value in OPTIONS.items():
        group, _, name = key.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[name] = value
    return short(**nested)


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory, eight_devices):
    """The same run on one process with eight devices, where the data lies, and on two with four, where it streams."""
    folder = tmp_path_factory.mktemp("runs")
    started = processes.start(folder / "two", *flags(), "--config.data.placement=stream")
    train(config(), folder / "one", Display(), eight_devices)
    done = processes.finish(started)
    assert [status for status, _ in done] == [0, 0], done
    yield folder / "one", folder / "two"
    jax.config.update("jax_enable_x64", False)


def assert_same(a, b):
    first, second = arrays_of(a, STEPS), arrays_of(b, STEPS)
    assert first.keys() == second.keys()
    for key in first:
        np.testing.assert_allclose(first[key], second[key], rtol=0, atol=1e-10, err_msg=key)
    counts = [
        [[row[key] for key in row if key.endswith(("step", "count", "accuracy"))] for row in rows_of(run)]
        for run in (a, b)
    ]
    assert counts[0] == counts[1]


def half_of(run, to):
    """Copies a run as it was when half of its steps were done."""
    shutil.copytree(run, to)
    shutil.rmtree(to / "checkpoints" / str(STEPS))
    return to


def test_two_processes_of_four_devices_and_one_of_eight_do_the_same(one_and_two):
    assert_same(*one_and_two)
    first = arrays_of(one_and_two[0], STEPS)
    assert first["['raw']['params']['head']['kernel']"].dtype == np.float64


def test_a_run_of_two_processes_goes_on_under_one_of_eight_devices_and_under_one_device(
    one_and_two, tmp_path, one_device, eight_devices
):
    one, two = one_and_two
    for mesh in (one_device, eight_devices):
        resumed = half_of(two, tmp_path / str(mesh.size))
        assert train(config(), resumed, Display(), mesh).finished
        assert_same(resumed, one)


def test_a_run_of_one_process_goes_on_under_two(one_and_two, tmp_path):
    one, _ = one_and_two
    resumed = half_of(one, tmp_path / "resumed")
    done = processes.finish(processes.start(resumed, *flags(), "--config.data.placement=device"))
    assert [status for status, _ in done] == [0, 0], done
    assert f"at step {STEPS // 2} of {STEPS}" in done[0][1]
    assert_same(resumed, one)


def test_two_processes_evaluate_a_run_together(one_and_two, tmp_path):
    what = ("--workdir", one_and_two[0], "--checkpoint", "newest", "--out", tmp_path)
    together = processes.start_all("jaxnets.evaluate", *what, prefix="--")
    done = processes.finish(together)
    assert [status for status, _ in done] == [0, 0], done
    report = json.loads((tmp_path / "metrics.json").read_text())
    [test] = [row for row in rows_of(one_and_two[0]) if "test/accuracy" in row and row["step"] == STEPS]
    assert report["count"] == test["test/count"] == 360
    assert report["accuracy"] == test["test/accuracy"]
    assert report["loss"] == pytest.approx(test["test/loss"], rel=1e-12)
    assert "accuracy" not in done[1][1]  # one of them reports


ENDLESS = ("--config.batch_size=16", "--config.steps=100000", "--config.log_every_steps=1")


@pytest.fixture
def endless(tmp_path):
    """Two processes that train until somebody stops them; they have begun."""
    started = processes.start(tmp_path / "run", *ENDLESS, devices=1)
    wait_for_rows(started[0], tmp_path / "run" / "metrics.jsonl", 3)
    yield started
    for process in started:
        process.kill()


def test_a_signal_to_one_process_saves_and_ends_all_at_the_same_step(endless, tmp_path):
    endless[1].send_signal(signal.SIGTERM)
    done = processes.finish(endless)
    assert [status for status, _ in done] == [143, 143], done
    [saved] = steps(tmp_path / "run" / "checkpoints")[-1:]
    assert f"stopped and saved at step {saved}; run the same command again to go on" in done[0][1]


def test_a_process_that_dies_ends_the_other_with_a_message(endless):
    endless[1].kill()
    status, said = processes.finish(endless)[0]
    assert status == 75, said
    assert "Run the same command again" in said
