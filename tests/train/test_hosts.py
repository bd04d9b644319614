"""Several processes are one run: they train, evaluate, save and stop as one."""

import itertools
import json
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxnets.run.checkpoints import steps
from jaxnets.train import hosts
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from tests.train import processes
from tests.train.runs import arrays_of, rows_of, short, wait_for_rows

STEPS = 20
OPTIONS = {
    "batch_size": 16,
    "steps": STEPS,
    "dtype": "float64",
    "ema.decay": 0.9,
    "log_every_steps": 2,
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
        *groups, name = key.split(".")
        group = nested
        for each in groups:
            group = group.setdefault(each, {})
        group[name] = value
    return short(**nested)


@pytest.fixture(scope="module")
def one(tmp_path_factory, eight_devices):
    """The run as one process with eight devices does it in one go."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    train(config(), folder, Display(), eight_devices)
    yield folder
    jax.config.update("jax_enable_x64", False)


@dataclass
class Relayed:
    """The same run, begun by two processes with four devices each."""

    first: list[tuple[int, str]]  # how these two ended, of which one got a signal
    stopped: Path  # the run as they left it
    last: list[tuple[int, str]]  # how two others ended that went on with what one process made of it
    resumed: int  # the step where they began
    finished: Path


@pytest.fixture(scope="module")
def relayed(tmp_path_factory, one, eight_devices):
    """Two processes (which stream), one (where the data lies on the devices) and again two (where it does)."""
    folder = tmp_path_factory.mktemp("runs")
    started = processes.start(folder / "run", *flags(), "--config.data.placement=stream")
    wait_for_rows(started[0], folder / "run" / "metrics.jsonl", 1)
    started[1].send_signal(signal.SIGTERM)
    first = processes.finish(started)
    shutil.copytree(folder / "run", folder / "stopped")

    class Stopping(Display):
        def update(self, step, *figures):
            if step >= STEPS // 2:
                signal.raise_signal(signal.SIGTERM)

    between = train(config(), folder / "run", Stopping(), eight_devices)
    last = processes.finish(processes.start(folder / "run", *flags(), "--config.data.placement=device"))
    return Relayed(first, folder / "stopped", last, between.step, folder / "run")


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


def test_a_signal_to_one_process_saves_and_ends_all_at_the_same_step(relayed):
    assert [status for status, _ in relayed.first] == [143, 143], relayed.first
    [saved] = steps(relayed.stopped / "checkpoints")[-1:]
    assert 0 < saved < STEPS
    assert f"stopped and saved at step {saved}; run the same command again to go on" in relayed.first[0][1]


def test_two_processes_of_four_devices_and_one_of_eight_do_the_same_and_go_on_with_each_other_s_run(one, relayed):
    assert [status for status, _ in relayed.last] == [0, 0], relayed.last
    assert f"at step {relayed.resumed} of {STEPS}" in relayed.last[0][1]
    assert steps(relayed.stopped / "checkpoints")[-1] < relayed.resumed < STEPS
    assert_same(relayed.finished, one)
    first = arrays_of(one, STEPS)
    assert first["['raw']['params']['head']['kernel']"].dtype == np.float64


def test_a_run_of_two_processes_goes_on_under_one_device(one, relayed, one_device):
    assert train(config(), relayed.stopped, Display(), one_device).finished
    assert_same(relayed.stopped, one)


def test_two_processes_evaluate_a_run_together(one, tmp_path):
    what = ("--workdir", one, "--checkpoint", "newest", "--out", tmp_path, "--no-page")
    together = processes.start_all("jaxnets.evaluate", *what, prefix="--")
    done = processes.finish(together)
    assert [status for status, _ in done] == [0, 0], done
    report = json.loads((tmp_path / "metrics.json").read_text())
    [test] = [row for row in rows_of(one) if "test/accuracy" in row and row["step"] == STEPS]
    assert report["count"] == test["test/count"] == 360
    assert report["accuracy"] == test["test/accuracy"]
    assert report["loss"] == pytest.approx(test["test/loss"], rel=1e-12)
    assert "accuracy" not in done[1][1]  # one of them reports


ENDLESS = ("--config.batch_size=16", "--config.steps=100000", "--config.log_every_steps=1", "--config.drawings=false")


def test_a_process_that_dies_ends_the_other_with_a_message(tmp_path):
    started = processes.start(tmp_path / "run", *ENDLESS, devices=1)
    wait_for_rows(started[0], tmp_path / "run" / "metrics.jsonl", 3)
    started[1].kill()
    status, said = processes.finish(started)[0]
    assert status == 75, said
    assert "Run the same command again" in said


class Service:
    """A coordination service as JAX's is: what is set once cannot be set again."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value, allow_overwrite=False):
        assert allow_overwrite or key not in self.values, f"ALREADY_EXISTS: {key}"
        self.values[key] = value

    def blocking_key_value_get(self, key, _):
        return self.values[key]


def test_processes_that_train_twice_decide_anew(monkeypatch):
    from jax._src.distributed import global_state

    monkeypatch.setattr(global_state, "client", Service())
    monkeypatch.setattr(global_state, "num_processes", 2)
    sessions = []
    for process in (0, 1):
        monkeypatch.setattr(global_state, "process_id", process)
        monkeypatch.setattr(hosts, "_sessions", itertools.count())
        sessions.append([hosts.Hosts(), hosts.Hosts()])
    for number, (leader, follower) in enumerate(zip(*sessions, strict=True)):
        assert leader.decide("is there a run", lambda number=number: number) == number
        assert follower.decide("is there a run", lambda: 99) == number
