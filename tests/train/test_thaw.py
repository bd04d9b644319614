"""Runs whose layers thaw on the way."""

import numpy as np
import pytest

from jaxnets.train.display import Display
from jaxnets.train.loop import train
from jaxnets.train.session import READY, Session
from tests.train.runs import arrays_of, rows_of, short

EPOCH = 1305 / 16  # steps: 1,305 of the digits are for training

# One stage thaws at step 2 and all at step 4; or all at once.
GRADUAL = {"before": "stage3", "stage_epochs": 2 / EPOCH, "thaw_epoch": 4 / EPOCH}
AT_ONCE = {"before": "stage3", "thaw_epoch": 4 / EPOCH}
ADAMW = {"name": "adamw", "learning_rate": 0.01, "head_rate": 3.0, "layer_decay": 0.8}


def config(placement, **changed):
    data = {"placement": placement}
    return {"ema": {"decay": 0.9}, "log_every_steps": 1, "eval_every_steps": 100, "data": data, **changed}


DEVICE = config("device", freeze=GRADUAL, optimizer=ADAMW)
STREAM = config("stream", freeze=AT_ONCE)
SHARDED = config(
    "stream",
    freeze={**AT_ONCE, "batch_norm": "train"},
    optimizer=ADAMW,
    batch_norm={"group_size": 4},
    accumulate_steps=2,
    mesh={"shard_parameters": True},
)


def assert_parts_give_the_whole(root, mesh, config, stops, first_stop=lambda: None):
    train(short(steps=6, **config), root / "whole", Display(), mesh)
    first_stop()
    for steps in stops:
        train(short(steps=steps, **config), root / "parts", Display(), mesh)
    whole, parts = arrays_of(root / "whole", 6), arrays_of(root / "parts", 6)
    assert whole.keys() == parts.keys()
    assert [key for key in whole if not np.array_equal(whole[key], parts[key])] == []
    training = [[row for row in rows_of(root / run) if "train/loss" in row] for run in ("whole", "parts")]
    assert training[0] == training[1]


def test_sessions_that_end_at_a_thaw_and_beside_it_give_the_run_in_one_go(tmp_path, one_device):
    assert_parts_give_the_whole(tmp_path, one_device, DEVICE, (3, 4, 6))


def test_a_run_that_is_stopped_while_a_thaw_is_compiled_keeps_the_state_before_it(
    tmp_path, one_device, monkeypatch, capsys
):
    def stopped():
        compiled = Session._compile
        with monkeypatch.context() as patched:
            patched.setattr(
                Session, "_compile", lambda self, phase, name: name == READY and compiled(self, phase, name)
            )
            assert train(short(steps=6, **STREAM), tmp_path / "parts", Display(), one_device).step == 4

    assert_parts_give_the_whole(tmp_path, one_device, STREAM, (6,), stopped)
    said = capsys.readouterr().out
    assert (
        "stage3, head: 56,202 of 75,002 parameters; the rest is frozen, its BatchNorm too; all train from step 4"
        in said
    )
    assert "step 4/6  more layers train from here" in said


@pytest.mark.slow
def test_so_they_do_on_eight_devices_with_micro_batches_and_a_state_that_is_split(tmp_path, eight_devices):
    assert_parts_give_the_whole(tmp_path, eight_devices, SHARDED, (3, 4, 5, 6))
