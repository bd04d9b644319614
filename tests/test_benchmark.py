"""The benchmark, on configs that training takes."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxnets.benchmark import __main__ as benchmark
from jaxnets.benchmark import training
from jaxnets.benchmark.training import Timing, time_training
from jaxnets.data.examples import Examples
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from tests.train.runs import short


@pytest.fixture(scope="module")
def weights(tmp_path_factory, one_device):
    workdir = tmp_path_factory.mktemp("weights") / "run"
    train(short(steps=1, eval_every_steps=1), workdir, Display(), one_device)
    return workdir


@pytest.fixture
def folder(tmp_path):
    """Images of many sizes, with a split of their own to test on."""
    for split, count in (("train", 10), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                Image.effect_noise((10 + i, 14), 80).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def test_a_config_is_timed_that_takes_its_size_from_pretrained_weights_and_only_training_images_are_read(
    weights, folder, monkeypatch
):
    read = []
    reading = Examples.read_into

    def noted(self, index, out):
        read.append(len(self))
        return reading(self, index, out)

    monkeypatch.setattr(Examples, "read_into", noted)
    data = {"source": f"folder:{folder}", "validation": 0.0}
    bare, loop = time_training(short(model={"pretrained": str(weights)}, data=data), steps=2, repeats=1)
    assert set(read) == {20}  # of training; the test split has 4
    assert all(np.isfinite(timing.median) and timing.median > 0 for timing in (bare, loop))


def test_the_command_prints_one_json_object(monkeypatch, capsys):
    timings = Timing("bare step", (0.1, 0.2, 0.3)), Timing("loop", (0.1, 0.3, 0.4))
    monkeypatch.setattr(training, "time_training", lambda config, steps, repeats: timings)
    monkeypatch.setattr("sys.argv", ["benchmark", "--config", "digits", "--config.batch_size=16", "--json"])
    with pytest.raises(SystemExit) as ended:
        benchmark.main()
    printed = json.loads(capsys.readouterr().out)
    assert not ended.value.code
    assert printed["batch_size"] == 16
    assert printed["overhead"] == pytest.approx(0.5)
    assert printed["loop"]["seconds_per_step"] == [0.1, 0.3, 0.4]
