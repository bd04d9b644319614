"""The benchmark, on configs that training takes."""

import argparse
import json
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from jaxnets.benchmark import __main__ as benchmark
from jaxnets.benchmark import input, ours, peers, training
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


# Delivers 10 images in as many seconds as it is given, and says which job it has.
FAKE = """
import json, sys
job = json.loads(sys.stdin.readline())
if sys.argv[1] == "copy":
    sys.exit(3)
print(json.dumps({"versions": {"job": job["source"], "files": len(job.get("paths", ()))}}), flush=True)
for line in sys.stdin:
    print(json.dumps({"images": 10, "seconds": float(line)}), flush=True)
print(json.dumps({"peak_mib": 12.5}), flush=True)
"""


def run_input(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["benchmark", "input", *arguments])
    with pytest.raises(SystemExit) as ended:
        benchmark.main()
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err


def test_the_input_s_benchmark_says_what_each_delivers_and_what_is_missing(monkeypatch, capsys, tmp_path, folder):
    fake = tmp_path / "fake.py"
    fake.write_text(FAKE)
    Image.new("RGB", (9, 9)).save(folder / "train" / "cat" / "a.jpg")
    monkeypatch.setattr(input, "_OURS", (sys.executable, str(fake)))
    monkeypatch.setattr(input, "_PEERS_FILE", fake)
    monkeypatch.setattr(input, "_prepare", lambda options, folder: "cannot be prepared")
    monkeypatch.setattr(input, "_python_with", lambda name, others: sys.executable if name == "timm" else None)
    options = ("--source", f"folder:{folder}", "--seconds", "2", "--repeats", "3", "--threads", "1", "--json")
    status, out, _ = run_input(monkeypatch, capsys, *options)
    found = json.loads(out)
    assert status == 0
    assert found["threads"] == 1
    assert found["peak_mib"] == 12.5
    assert found["note"] == "tf.data, torchvision, timm read the 1 of 21 images that are JPEG files"
    row = {"images_per_second": 5.0, "repeats": [5.0] * 3, "spread": [5.0, 5.0], "peak_mib": 12.5}
    assert found["stream"] == {**row, "job": f"folder:{folder}", "files": 0}
    assert found["timm"] == {**row, "job": f"folder:{folder}", "files": 1}  # the only JPEG
    assert found["missing"] == {
        "copy": "its process ended with status 3",
        "prepared": "cannot be prepared",
        "tf.data": "not installed: give a Python that has it with --python",
        "torchvision": "not installed: give a Python that has it with --python",
    }
    assert "prepared" not in found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--repeats", "0"), "--repeats must be above 0 and finite, found 0"),
        (("--batch-size", "-1"), "--batch-size must be above 0 and finite, found -1"),
        (("--canvas", "0"), "--canvas must be above 0 and finite, found 0"),
        (("--seconds", "nan"), "--seconds must be above 0 and finite, found nan"),
        (("--seconds", "inf"), "--seconds must be above 0 and finite, found inf"),
        (("--threads", "-1"), "--threads must be at least 0, found -1"),
        (("--config.seed=1",), "takes no config, found --config.seed=1"),
        (("--python", "/no/such/python"), "/no/such/python cannot be run"),
    ],
)
def test_the_input_s_benchmark_refuses_what_it_cannot_do(monkeypatch, capsys, folder, arguments, message):
    Image.new("RGB", (9, 9)).save(folder / "train" / "cat" / "a.jpg")
    monkeypatch.setattr(input, "_prepare", lambda options, folder: "")
    monkeypatch.setattr(input, "find_spec", lambda name: None)
    status, out, err = run_input(monkeypatch, capsys, "--source", f"folder:{folder}", *arguments)
    assert (status, out) == (1, "")
    assert message in err


def test_what_is_prepared_to_be_timed_has_the_canvases_that_are_streamed(tmp_path_factory, folder):
    out = tmp_path_factory.mktemp("prepared")
    for file in folder.rglob("*.png"):
        Image.new("RGB", (12, 9)).save(file)
    (folder / "train" / "cat" / "!.png").write_bytes(b"is left out")
    options = argparse.ArgumentParser()
    input.add_options(options)
    chosen = options.parse_args(["--source", f"folder:{folder}", "--size", "8"])
    found = input._prepare(chosen, out)
    assert found == {"source": f"prepared:{out}", "directory": None}
    job = {"canvas_size": None, "size": 8, "batch_size": 3, "threads": 0}
    streamed, prepared = (
        ours.open_examples({**job, **of})[0] for of in ({"source": f"folder:{folder}", "directory": None}, found)
    )
    assert prepared.shape == streamed.shape == (9, 12, 3)


def test_where_what_is_read_lies_is_said_to_what_prepares(monkeypatch, tmp_path, folder):
    asked = []
    monkeypatch.setattr(input, "_canvas_size", lambda options: "8")

    def run(command, **options):
        asked.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(input.subprocess, "run", run)
    options = argparse.ArgumentParser()
    input.add_options(options)
    input._prepare(options.parse_args(["--source", "tfds:mnist", "--directory", "/data"]), tmp_path)
    assert "--config.data.directory=/data" in asked[0]


def test_fewer_files_than_a_batch_are_refused_where_an_epoch_would_have_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    with pytest.raises(ValueError, match="2 files make no batch of 3"):
        peers._torch_files({"paths": ["a", "b"], "labels": [0, 1], "batch_size": 3}, None, None)


@pytest.mark.parametrize("name", ["stream", "canvases", "copy", "cut"])
def test_each_of_ours_delivers_batches(name, folder, monkeypatch):
    monkeypatch.setattr(ours, "_COPIED", 1000)
    job = {"source": f"folder:{folder}", "directory": None, "size": 8, "canvas_size": None}
    versions, open_stream = ours.OURS[name]({**job, "batch_size": 3, "threads": 1})
    batches = iter(open_stream())
    assert [next(batches) for _ in range(9)] == [3] * 9  # of 20 images
    assert all(isinstance(version, str) for version in versions.values())
    batches.close()


def test_what_is_measured_starts_after_the_first_batches(monkeypatch, capsys):
    clock = iter(range(100))
    monkeypatch.setattr(peers.time, "perf_counter", lambda: next(clock))
    lines = iter(['{"size": 8}\n', "3\n"])
    monkeypatch.setattr("sys.stdout", sys.stdout)  # put back what `serve` sets
    monkeypatch.setattr(
        "sys.stdin", type("Lines", (), {"readline": lambda s: next(lines), "__iter__": lambda s: lines})()
    )
    peers.serve(lambda job: ({"size": str(job["size"])}, lambda: iter([1000, 1000, 1000, 5, 7, 9])))
    first, measured, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"versions": {"size": "8"}}
    assert measured == {"images": 5 + 7 + 9, "seconds": 3}
    assert last["peak_mib"] > 10
