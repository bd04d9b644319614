"""A run that was killed gives what the uninterrupted one gives, bit for bit."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxnets.train.display import Display
from jaxnets.train.loop import train
from tests.conftest import environment
from tests.train.runs import SMALL, arrays_of, assert_same_run, rows_of, short, wait_for_rows

OPTIONS = [
    f"--config.model.name={SMALL}",
    "--config.batch_size=16",
    "--config.steps=40",
    "--config.ema.decay=0.9",
    "--config.log_every_steps=1",
    "--config.eval_every_steps=10",
    "--config.checkpoint_every_steps=4",
    "--config.data.validation=0.1",
]


# Of the digits with such batches an epoch has 91 steps: one stage thaws at step 12, the rest at 24.
THAW = [
    *("--config.freeze.before=stage3", "--config.freeze.stage_epochs=0.13", "--config.freeze.thaw_epoch=0.26"),
    "--config.drawings=false",
]


def start(workdir: Path, *options: str) -> subprocess.Popen:
    """Starts a run, with the programs that users get."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "jaxnets.main", "--config", "digits", "--workdir", workdir),
            *(*OPTIONS, *options),
        ],
        env=environment(optimised=True),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill_at(process: subprocess.Popen, workdir: Path, rows: int, delay: float) -> None:
    """Kills the run a moment after it has written as many rows."""
    wait_for_rows(process, workdir / "metrics.jsonl", rows)
    time.sleep(delay)
    assert process.poll() is None, "the run was over before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize(
    ("placement", "more"),
    [
        ("device", []),
        pytest.param("stream", [], marks=pytest.mark.slow),
        *(pytest.param(placement, THAW, marks=pytest.mark.slow) for placement in ("device", "stream")),
    ],
)
def test_a_killed_run_goes_on_to_the_bits_of_the_uninterrupted_one(tmp_path, placement, more):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = [f"--config.data.placement={placement}", *more]
    assert start(whole, *options).wait(timeout=300) == 0
    moment = random.Random(time.time_ns())
    rows, delay = moment.randint(1, 40), moment.uniform(0, 0.05)
    print(f"killed after {rows} rows and {delay:.3f} s")
    kill_at(start(killed, *options), killed, rows, delay)
    assert start(killed, *options).wait(timeout=300) == 0
    assert_same_run(whole, killed)


@pytest.mark.parametrize("placement", ["device", "stream"])
def test_a_finished_run_goes_on_when_it_is_given_more_steps(tmp_path, one_device, placement):
    augment = {"random_resized_crop": {"area": (0.5, 1.0)}, "flip": {"horizontal": 0.5, "alternate": True}}
    data = {"placement": placement, "balance": 0.5, "folds": 10, "validation": 0.0, "image_size": 8, "test_size": 9}
    config = {"log_every_steps": 4, "data": data, "augment": augment}
    train(short(steps=8, **config), tmp_path / "whole", Display(), one_device)
    for steps, threads in ((4, 0), (8, 2)):
        config["data"] = {**data, "threads": threads}
        train(short(steps=steps, **config), tmp_path / "parts", Display(), one_device)
    whole, parts = arrays_of(tmp_path / "whole", 8), arrays_of(tmp_path / "parts", 8)
    assert all((whole[key] == parts[key]).all() for key in whole)
    training = [[row for row in rows_of(tmp_path / run) if "train/loss" in row] for run in ("whole", "parts")]
    assert training[0] == training[1]
