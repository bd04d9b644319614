import json
import os
from dataclasses import replace

import numpy as np
import pytest

import jaxnets
from jaxnets.config import Config, resolve
from jaxnets.config_check import without_effect
from jaxnets.data.dataset import open_dataset
from jaxnets.errors import UserError
from jaxnets.flags import load_config
from jaxnets.run.directory import RunDirectory
from jaxnets.run.storage import open_place
from jaxnets.schema import AUTO
from jaxnets.train import auto_batch, opened
from jaxnets.train.auto_batch import Measured, largest_of_a_convolution, memory_for_step, quantum_of, resident
from jaxnets.train.build import build
from jaxnets.train.display import Display
from jaxnets.train.feed import Draws, ResidentFeed, jit_train_step, lower_step
from jaxnets.train.hosts import Hosts
from jaxnets.train.loop import train
from jaxnets.train.opened import Opened
from jaxnets.train.phases import Phases
from tests.train.runs import short

MIB = 2**20


def test_auto_is_a_batch_size_in_every_form_that_a_key_takes():
    assert load_config("digits", ["--config.batch_size=auto"]).batch_size is AUTO
    assert load_config("digits", ["--config.batch_size=1e2"]).batch_size == 100
    config = jaxnets.get_config("digits")
    config.batch_size = "AUTO"
    assert resolve(config).batch_size is AUTO
    assert resolve({"batch_size": AUTO}).batch_size is AUTO
    for wrong in ("car", 0, -4, 2.5, True, None):
        with pytest.raises(UserError, match=r"batch_size must be a whole number, at least 1, or auto, found"):
            resolve({"batch_size": wrong})


def test_auto_goes_with_no_fine_tune_and_its_limit_with_nothing_else():
    with pytest.raises(UserError, match="begins with a head: give a number"):
        resolve({"batch_size": "auto", "finetune": {"method": "head"}})
    assert without_effect(Config(memory_limit_mib=100)) == [
        "config.memory_limit_mib has no effect: config.batch_size is 128"
    ]
    assert not without_effect(Config(memory_limit_mib=100, batch_size=AUTO))


def test_every_batch_is_shared_equally_in_whole_groups_repeats_and_pairs():
    config = short(batch_norm={"group_size": 6}, accumulate_steps=2, batch_size=48)
    assert quantum_of(config, 8) == 2 * 24
    assert quantum_of(short(mix={"mixup": 0.2}), 1) == 2
    assert quantum_of(short(data={"repeats": 4}), 2) == 4


def test_the_program_that_is_measured_is_the_one_that_the_feed_compiles(one_device):
    config = short()
    data = open_dataset(config)
    built = build(config, data)
    phases = Phases(built.phases, one_device, split=False)
    step, state = built.phases[0].step, phases.like(built.phases[0])
    draws = Draws(order=data.order, batch_size=config.batch_size, stop_step=4)
    feed = ResidentFeed(data.training, draws, step, 0, one_device, Hosts())
    rows = feed._rows(np.zeros(0, np.int32), 0)
    compiled = jit_train_step(feed._function, state, one_device).lower(state, *feed._data, rows, rows, np.int32(0))
    measured = lower_step(config.data, data.training, step, state, config.batch_size, one_device)
    assert measured.as_text() == compiled.as_text()


def test_what_is_only_tried_is_not_warned_of(one_device, caplog):
    config = short(batch_size=1, augment={"pad_and_crop": {"padding": 0}})
    build(config, open_dataset(config))
    assert "values of each channel" in caplog.text  # as of a run with that batch
    caplog.clear()
    Measured.open(config, one_device, Opened()).need(1)
    assert not caplog.text


def test_the_largest_array_of_a_convolution_is_found_in_the_programs_text():
    lines = (
        "%1 = stablehlo.convolution(%a, %b) window = {pad = [[1, 1]]} : (tensor<4x8x8x16xf32>, tensor<3x3x16x32xf32>) "
        "-> tensor<4x8x8x32xf32>",
        "%2 = stablehlo.convolution(%a, %b) : (tensor<9x9xbf16>, tensor<2xf64>) -> tensor<4x4xbf16>",
        "%3 = stablehlo.add %a, %b : tensor<1000x1000xf32>",
    )
    assert largest_of_a_convolution("\n".join(lines)) == 4 * 8 * 8 * 32 * 4
    assert largest_of_a_convolution(lines[1]) == 9 * 9 * 2
    assert largest_of_a_convolution(lines[2]) == 0


def test_on_a_cpu_there_is_what_the_limit_leaves_of_what_is_used(one_device):
    config = replace(short(), memory_limit_mib=2**20)
    data = open_dataset(config)
    room = memory_for_step(config, data, one_device, 0)
    assert room.bytes == pytest.approx(0.96 * 2**40 - resident(), rel=1e-3)
    assert "1,048,576 MiB (config.memory_limit_mib)" in room.said
    free = memory_for_step(replace(config, memory_limit_mib=None), data, one_device, 0)
    assert 0 < free.bytes < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def a_mib_each(monkeypatch):
    """Has every example need 1 MiB, where there is room for 19 of them."""
    asked = []

    def need(self, batch_size):
        asked.append(batch_size)
        return batch_size * MIB

    monkeypatch.setattr(Measured, "need", need)
    monkeypatch.setattr(auto_batch, "memory_for_step", lambda *_: auto_batch.Room(19.5 * MIB, "19 MiB"))
    return asked


def test_a_run_finds_its_batch_once_and_writes_a_number(tmp_path, a_mib_each, one_device, capsys):
    config = replace(short(steps=2, eval_every_steps=2, batch_norm={"group_size": 4}), batch_size=AUTO)
    assert train(config, open_place(tmp_path), Display(), one_device).finished
    saved = json.loads((tmp_path / "config.json").read_text())
    assert (saved["batch_size"], saved["memory_limit_mib"]) == (16, None)
    count = len(a_mib_each)
    assert count <= 3
    said = capsys.readouterr().out
    assert "config.batch_size auto: 16. Its step needs 16 MiB of 19 MiB" in said
    assert "the rate at its peak stays 0.1" in said
    resumed = replace(config, steps=3)
    assert train(resumed, open_place(tmp_path), Display(quiet=True), one_device).step == 3
    assert len(a_mib_each) == count  # the run has its number


def test_the_rate_for_256_follows_the_batch(a_mib_each, one_device, tmp_path):
    said = []
    optimizer = {"learning_rate": None, "learning_rate_per_256": 0.8}
    config = replace(short(optimizer=optimizer), batch_size=AUTO)
    run = RunDirectory(tmp_path)
    found = auto_batch.with_batch_size(config, run, Hosts(), one_device, Opened(), said.append)
    assert found.optimizer.peak(found.batch_size) == pytest.approx(0.8 * found.batch_size / 256)
    assert f"0.8 × {found.batch_size} / 256" in said[-1]


def test_where_no_batch_fits_the_message_says_what_is_there(monkeypatch, one_device, tmp_path):
    monkeypatch.setattr(Measured, "need", lambda self, batch_size: (900 + batch_size) * MIB)
    config = replace(short(), batch_size=AUTO, memory_limit_mib=1)
    run = RunDirectory(tmp_path)
    with pytest.raises(UserError, match=r"not even a batch of 1 fits: its step needs 901 MiB.*limit_mib\) leave"):
        auto_batch.with_batch_size(config, run, Hosts(), one_device, Opened(), lambda text: None)


def test_data_that_is_open_is_not_opened_again(monkeypatch):
    calls = []
    real = opened.open_dataset
    monkeypatch.setattr(opened, "open_dataset", lambda *given: calls.append(1) or real(*given))
    keeps = Opened()
    config = short(data={"repeats": 2})
    first = keeps.open(config, None, None)
    again = keeps.open(replace(config, batch_size=32, epochs=3.0), None, None)
    assert again.training is first.training
    assert len(calls) == 1
    plain = open_dataset(replace(config, batch_size=32))
    np.testing.assert_array_equal(again.order.draw(40, 64)[0], plain.order.draw(40, 64)[0])
    keeps.open(replace(config, seed=1), None, None)
    assert len(calls) == 2
