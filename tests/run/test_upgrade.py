"""What an earlier version wrote opens; the two files of format 1 are as jaxnets 0.1.0 wrote them in November 2026."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import jaxnets
from jaxnets.config import resolve
from jaxnets.errors import UserError
from jaxnets.recipe.augment.flip import Flip
from jaxnets.recipe.augment.pad_and_crop import PadAndCrop
from jaxnets.recipe.ema import EmaConfig
from jaxnets.run.directory import RunDirectory
from jaxnets.run.upgrade import upgrade_config
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from tests.train.runs import SMALL, short

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def old_run(tmp_path_factory, one_device):
    """A run of format 1: the checkpoints of both formats are alike."""
    workdir = tmp_path_factory.mktemp("old") / "run"
    train(short(ema={"decay": 0.9}), workdir, Display(), one_device)
    for name in ("config", "model"):
        shutil.copy(DATA / f"format1_{name}.json", workdir / f"{name}.json")
    return workdir


def test_a_run_of_format_1_opens_and_is_evaluated(old_run):
    classifier = jaxnets.load(old_run, engine="jax")
    assert (classifier.name, classifier.activation, classifier.preprocess.white_level) == (SMALL, "softmax", 65535)
    assert classifier.predict(np.zeros((8, 8), np.uint8)).shape == (1, 10)
    assert jaxnets.evaluate(old_run, source="digits")["count"] == 360


def test_the_config_of_format_1_has_todays_keys(old_run):
    config = RunDirectory(old_run).read_config()
    assert config.loss.label_smoothing == 0.1
    assert config.augment.pad_and_crop == PadAndCrop(padding=1)
    assert config.augment.flip == Flip()


def test_mirroring_of_format_1_is_a_probability_of_one_half():
    assert upgrade_config({"data": {"flip": True}}, 1)["augment"]["flip"] == {"horizontal": 0.5}


def test_ema_decay_is_the_decay_of_the_group_with_tensorflow_s_warm_up():
    assert resolve(upgrade_config({"ema_decay": 0.99}, 2)).ema == EmaConfig(decay=0.99, warmup="tensorflow")
    assert resolve(upgrade_config({"ema_decay": None}, 2)).ema == EmaConfig()


def test_a_run_with_an_average_that_an_earlier_version_began_is_gone_on_with(old_run, tmp_path, one_device):
    workdir = shutil.copytree(old_run, tmp_path / "run")
    train(short(ema={"decay": 0.9}), tmp_path / "new", Display(quiet=True), one_device)
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    for group in ("ema", "distill"):  # which it did not have
        config.pop(group)
    (workdir / "config.json").write_text(json.dumps({**config, "ema_decay": 0.9}))
    shutil.copy(tmp_path / "new" / "model.json", workdir)
    outcome = train(short(ema={"decay": 0.9}, steps=5), workdir, Display(quiet=True), one_device)
    assert (outcome.step, outcome.finished) == (5, True)
    assert "ema_decay" not in json.loads((workdir / "config.json").read_text())


@pytest.mark.parametrize("format", [0, 4, None, "2"])
def test_a_format_that_is_not_known_is_refused(old_run, format):
    saved = json.loads((DATA / "format1_model.json").read_text())
    (old_run / "model.json").write_text(json.dumps({**saved, "format": format}))
    with pytest.raises(UserError, match=f"has format {format}, this jaxnets reads formats 1 to 3"):
        RunDirectory(old_run).read_model()
