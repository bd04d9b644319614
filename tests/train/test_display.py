"""What a run shows, and that it does not depend on somebody who looks."""

import io
import os
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from jaxnets.preprocess import Preprocess
from jaxnets.train.display import Display
from tests.train.runs import short


def test_a_reader_that_hangs_up_does_not_end_the_run(monkeypatch, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        display = Display()
        display.say("stopping: the run is saved first")
        display.say("saved")  # into nothing
    assert display._console.quiet


PREPROCESS = Preprocess(height=8, width=12, channels=1, mean=(0.5,), std=(0.5,))
DATA = SimpleNamespace(
    splits={"train": range(1200), "test": range(300)},
    preprocess=PREPROCESS,
    training_preprocess=PREPROCESS,
    notes=("2 classes: [red], caf\udce9\x1b[31m",),
)
PARAMS = {"head": {"kernel": np.zeros((30, 40)), "bias": np.zeros(40)}}


def described(config, *, parameters=False, width=None, mesh=None) -> list[str]:
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    console = Console(
        file=out, markup=False, emoji=False, highlight=False, force_terminal=width is not None, width=width or 200
    )
    Display(console, parameters=parameters).describe(config, DATA, PARAMS, mesh, 5000)
    return out.buffer.getvalue().decode().splitlines()


def test_a_run_is_described_in_a_line_for_each_thing(one_device):
    config, model, data, devices = described(short(data={"mean": (0.5,), "std": (0.25,)}), mesh=one_device)
    assert config.startswith("config: batch_size=16 steps=4 log_every_steps=3 eval_every_steps=4 drawings=false ")
    assert " data.mean=0.5, data.std=0.25, " in config
    assert "optimizer." not in config  # as the defaults have it
    assert model == "model: resnet8_cifar, 1,240 parameters"
    assert data == "data: digits, 1,200 train, 300 test, 8×12×1; 2 classes: [red], caf\\xe9\\x1b[31m"
    assert devices == "devices: 1 × cpu; 5,000 steps of 16 examples"


def test_a_row_says_which_figures_are_of_the_averaged_weights_and_which_of_the_raw_ones():
    console = Console(record=True, width=200, file=io.StringIO())
    values = {"eval/split": "validation", "eval/accuracy": 0.9, "eval/raw_accuracy": 0.8, "eval/raw_loss": 0.7}
    Display(console).row(4, 20, 1.0, values)
    line = console.export_text().strip()
    assert line.endswith("validation, averaged weights: accuracy 90.00%;  raw weights: accuracy 80.00%  loss 0.7")


def test_the_parameters_are_a_table_only_when_they_are_asked_for(one_device):
    lines = described(short(), parameters=True, mesh=one_device)
    assert any("head/kernel" in line and "1,200" in line for line in lines)
    assert not any("head/kernel" in line for line in described(short(), mesh=one_device))


def test_a_narrow_terminal_breaks_lines_between_keys(one_device):
    lines = described(short(), width=40, mesh=one_device)
    assert max(map(len, lines)) <= 40, lines
    assert all(line.startswith(("config:", "model:", "data:", "devices:", "  ")) for line in lines)


@pytest.mark.parametrize("speed", [None, 1234.5])
def test_the_bar_shows_no_speed_that_is_not_known(speed):
    console = Console(file=io.StringIO(), force_terminal=True, width=120, markup=False)
    display = Display(console)
    display.start(0, 10)
    display.update(1, 2.5, 0.5, speed)
    display.stop()
    shown = console.file.getvalue()
    assert "loss 2.500  accuracy 50.0%" in shown
    assert "nan" not in shown
    assert ("1,234 images/s" in shown) == (speed is not None)


def test_a_row_says_in_percent_how_long_the_devices_waited_and_how_busy_they_were():
    console = Console(file=io.StringIO(), width=120, markup=False)
    values = {"train/images_per_second": 1234.5, "train/data_wait": 0.1234, "train/mfu": None}
    display = Display(console)
    display.row(3, 10, 0.5, values)
    display.row(4, 10, 0.5, {**values, "train/mfu": 0.5})
    first, second = console.file.getvalue().splitlines()
    assert first.endswith("train: images_per_second 1,234  data_wait 12.3%")
    assert second.endswith("data_wait 12.3%  mfu 50.0%")
