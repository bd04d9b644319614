"""The commands as a user types them: what they print, what they write, and what they say to mistakes."""

import gzip
import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxnets.evaluate.__main__ import report_target
from tests.train.runs import SMALL, assert_same_run, rows_of

ROOT = Path(__file__).parent.parent
SMALLER = f"--config.model.name={SMALL}"
TRAIN = ("--config", "digits", SMALLER, "--config.batch_size=16", "--config.steps=4", "--config.eval_every_steps=2")


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    """A run on eight devices, and what it printed."""
    workdir = tmp_path_factory.mktemp("runs") / "digits"
    done = run("jaxnets.main", *TRAIN, "--workdir", workdir, devices=8)
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def evaluate(run, workdir, out, *arguments, devices=1):
    done = run("jaxnets.evaluate", "--workdir", workdir, "--out", out, "--no-page", *arguments, devices=devices)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "metrics.json").read_text())


# In float32 the logits differ in their last digit between batches of other shapes, for a compiled convolution adds in
# another order. So does what is computed of their values; and two images that a model tells apart by as little may
# change places in an order. All else are counts and what follows from them.
_OF_VALUES = ("loss", "log_loss", "brier", "ece", "maximal_calibration_error", "mean_confidence")
_OF_ORDER = ("roc_auc", "pr_auc", "average_precision", "aurc")


def assert_same_figures(one, other):
    """Asserts that counts and what follows from them are the same to the bit, and the rest to a rounding."""
    one, other = dict(flattened(one)), dict(flattened(other))
    assert one.keys() == other.keys()
    for key, value in one.items():
        name, expected = key.rpartition("/")[2], other[key]
        if name in _OF_VALUES:
            expected = pytest.approx(expected, rel=1e-6)
        elif name in _OF_ORDER:
            expected = pytest.approx(expected, rel=1e-4)
        assert value == expected, key


def flattened(value, name=""):
    """Yields what lies in mappings and lists, by where it lies."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flattened(inner, f"{name}/{key}")
    else:
        yield name, value


def test_training_shows_what_was_changed_the_model_the_data_and_its_progress(trained):
    config, model, data, devices, *progress = trained[1].splitlines()
    assert config.startswith(f"config: batch_size=16 steps=4 eval_every_steps=2 model.name={SMALL} ")
    assert model == f"model: {SMALL}, 75,002 parameters"
    assert data.startswith("data: digits, 1,437 train, 360 test, 8×8×1; 10 classes: 0, 1,")
    assert devices == "devices: 8 × cpu; 4 steps of 16 examples"
    assert all(line.startswith("step ") for line in progress)
    assert progress[-1].startswith("step 4/4")
    assert {"curves.png", "first_batch.png"} <= {file.name for file in trained[0].iterdir()}


def test_the_same_command_on_a_finished_run_says_so(run, trained):
    done = run("jaxnets.main", *TRAIN, "--workdir", trained[0])
    assert done.returncode == 0
    assert "is finished: 4 of 4 steps are done" in done.stdout


def test_a_run_saved_on_eight_devices_evaluates_on_one_to_the_same_metrics(run, trained, tmp_path):
    one = evaluate(run, trained[0], tmp_path / "one")
    eight = evaluate(run, trained[0], tmp_path / "eight", "--batch-size", 100, devices=8)
    assert one["count"] == 360
    assert_same_figures(one, eight)


def test_a_run_saved_on_eight_devices_goes_on_on_one(run, trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    more = run("jaxnets.main", *TRAIN, "--config.steps=6", "--workdir", tmp_path / "run")
    assert "resuming" in more.stdout
    assert "step 6/6" in more.stdout


def test_the_report_holds_what_the_design_says(run, trained):
    done = run("jaxnets.evaluate", "--workdir", trained[0])
    report = json.loads((trained[0] / "report" / "metrics.json").read_text())
    assert report["format"] == 1
    assert report["split"] == "test"
    assert report["accuracy"] == report["correct"] / report["count"]
    assert sum(row["correct"] for row in report["per_class"].values()) == report["correct"]
    assert list(report["per_class"]) == [str(digit) for digit in range(10)]
    assert f"{report['accuracy']:.2%} ({report['correct']} of 360)" in done.stdout
    files = {file.name for file in (trained[0] / "report").iterdir()}
    assert {"index.html", "metrics.json", "predictions.csv", "confusion.png", "learning.png"} <= files
    assert len((trained[0] / "report" / "predictions.csv").read_text().splitlines()) == 1 + 360
    assert report["cost"]["parameters"] == 75_002
    assert report["interval"]["low"] < report["accuracy"] < report["interval"]["high"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_any_batch_size_counts_every_example_once(run, trained, tmp_path, split):
    reports = [
        evaluate(run, trained[0], tmp_path, "--split", split, "--batch-size", size) for size in (1000, 7)
    ]  # fmt: skip
    assert reports[0]["count"] == {"train": 1437, "test": 360}[split]
    assert_same_figures(*reports)


def test_a_read_only_run_reports_into_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    report = tmp_path / "runs" / "x" / "report"
    report.parent.mkdir(parents=True)
    assert report_target(None, report) == report / "metrics.json"
    # The tests may run as root, who may write anywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(tmp_path / "runs"))
    assert report_target(None, report) == tmp_path / "cache" / "jaxnets" / "reports" / "x" / "metrics.json"
    assert report_target(tmp_path / "out", report) == tmp_path / "out" / "metrics.json"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name, size in (("a.png", (8, 8)), ("b.jpg", (50, 30))):
        Image.effect_noise(size, 80).save(folder / name)
    (folder / "notes.txt").write_text("no image\n")
    return folder


def test_predict_names_classes_for_images_and_folders(run, trained, images):
    done = run("jaxnets.predict", "--model", trained[0], images, images / "a.png", "--top", 3)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        str(images / name) for name in ("a.png", "b.jpg", "a.png")
    ]
    assert len(lines) == 3 * (1 + 3)


def test_predict_writes_json_lines_and_goes_on_after_what_is_no_image(run, trained, images):
    done = run("jaxnets.predict", "--model", trained[0], images / "notes.txt", images / "b.jpg", "--json")
    first, second = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 1
    assert "is not an image that can be read" in first["error"]
    assert second["file"] == str(images / "b.jpg")
    assert sum(row["probability"] for row in second["top"]) <= 1 + 1e-6


def write_idx(path, array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def write_images(folder, *, classes=("cat", "dog"), count=6):
    for split in ("train", "test"):
        for name in classes:
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                Image.effect_noise((10, 10), 80).convert("RGB").save(folder / split / name / f"{i}.jpg")


SHORT = (SMALLER, *(f"--config.{key}" for key in ("batch_size=4", "steps=2", "eval_every_steps=2", "drawings=false")))


@pytest.fixture(scope="module")
def images_and_run(run, tmp_path_factory):
    """A folder of images, a run on it and what the run printed."""
    root = tmp_path_factory.mktemp("folder")
    write_images(root / "images")
    source = f"--config.data.source=folder:{root / 'images'}"
    done = run("jaxnets.main", "--config", "digits", *SHORT, source, "--workdir", root / "run")
    assert done.returncode == 0, done.stderr
    return root, done.stdout


@pytest.fixture
def folder(images_and_run, tmp_path):
    """A copy of the images."""
    return shutil.copytree(images_and_run[0] / "images", tmp_path / "images")


@pytest.fixture
def finished(images_and_run, folder):
    """A copy of the run, on the copy of the images."""
    run = shutil.copytree(images_and_run[0] / "run", folder.parent / "run")
    config = run / "config.json"
    config.write_text(config.read_text().replace(str(images_and_run[0] / "images"), str(folder)))
    return run


def test_a_folder_of_images_trains(images_and_run):
    assert "12 train, 12 test, 10×10×3; 2 classes: cat, dog" in images_and_run[1]


def test_a_folder_of_images_trains_as_a_stream(run, images_and_run, folder, tmp_path):
    source = (f"--config.data.source=folder:{folder}", "--config.data.placement=stream")
    done = run("jaxnets.main", "--config", "digits", *SHORT, *source, "--workdir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert rows_of(tmp_path / "run") == rows_of(images_and_run[0] / "run")


def test_idx_files_train_from_another_directory_by_a_relative_path(run, tmp_path):
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    for name, count in (("train", 40), ("t10k", 10)):
        write_idx(tmp_path / "data" / f"{name}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 8, 8), np.uint8))
        write_idx(tmp_path / "data" / f"{name}-labels-idx1-ubyte.gz", np.arange(count, dtype=np.uint8) % 10)
    source = "--config.data.source=idx:data"
    done = run("jaxnets.main", "--config", "digits", *SHORT, source, "--workdir", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run("jaxnets.evaluate", "--workdir", tmp_path / "run", "--no-page")
    assert "of 10)" in done.stdout


def test_data_that_has_moved_is_still_the_run_s_data(run, finished, folder, tmp_path):
    folder.rename(tmp_path / "moved")
    source = f"--config.data.source=folder:{tmp_path / 'moved'}"
    moved = run("jaxnets.main", "--config", "digits", *SHORT, "--workdir", finished, source)
    assert "is finished" in moved.stdout, moved.stderr


CONFIG_WITHOUT_TENSORFLOW = """
import importlib.machinery
import sys


class Refuse:
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name.split(".")[0] == "tensorflow" else None

    def create_module(self, spec):
        raise AssertionError("TensorFlow is imported")

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, Refuse())
import tests.data.sources.tfds_builders  # registers the data sets
from jaxnets.config import default_config


def get_config():
    return default_config()
"""


def test_tfds_data_trains_where_tensorflow_cannot_be_imported(run, tmp_path):
    config = tmp_path / "mine.py"
    config.write_text(CONFIG_WITHOUT_TENSORFLOW)
    options = (
        "--config.data.source=tfds:jaxnets_bytes",
        f"--config.data.directory={tmp_path / 'tfds'}",
        "--config.data.image_size=8",
    )
    done = run("jaxnets.main", "--config", config, *SHORT, *options, "--workdir", tmp_path / "run", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "step 2/2" in done.stdout


def test_evaluate_refuses_data_that_is_not_the_run_s(run, finished, folder):
    (folder / "test" / "cat" / "0.jpg").unlink()
    done = run("jaxnets.evaluate", "--workdir", finished, "--no-page")
    assert done.returncode == 1
    assert "is no longer the data of this run" in done.stderr
    done = run("jaxnets.evaluate", "--workdir", finished, "--no-page", "--source", f"folder:{folder}")
    assert "of 11)" in done.stdout


def first_line_of(run, *arguments, **options) -> str:
    done = run("jaxnets.main", "--config", "digits", *arguments, **options)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--lr=0.1"], "unknown option --lr=0.1 (did you mean --config.optimizer.learning_rate=0.1?)"),
        (["--config.model.name=resnet21_cifar"], "no model 'resnet21_cifar' (did you mean 'resnet"),
        (["--config.data.source=folder:/nowhere"], "/nowhere does not exist"),
        (["--config.data.source=digit"], "found 'digit' (did you mean 'digits'?)"),
        (["--config.batch_size=12"], "config.batch_size 12 cannot be shared equally by 8 devices: take 8 or 16"),
    ],
)
def test_a_mistake_gets_one_message(run, tmp_path, arguments, expected):
    assert expected in first_line_of(run, *arguments, "--workdir", tmp_path / "run", devices=8)
    assert not (tmp_path / "run").exists()


def test_an_address_of_another_kind_is_no_work_directory(run, tmp_path):
    said = first_line_of(run, "--workdir", "s3://bucket/run", cwd=tmp_path)
    assert "s3://bucket/run is neither a directory nor a folder of a bucket (gs://BUCKET/FOLDER)" in said
    assert not list(tmp_path.iterdir())


def test_a_corrupt_image_stops_training_and_is_named(run, folder, tmp_path):
    broken = folder / "train" / "cat" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    source = f"--config.data.source=folder:{folder}"
    options = (*SHORT, source, "--workdir", tmp_path / "run", "--config.data.image_size=10")
    message = first_line_of(run, *options)
    assert str(broken) in message
    assert "--config.data.skip_corrupt=true" in message
    done = run("jaxnets.main", "--config", "digits", *options, "--config.data.skip_corrupt=true")
    assert done.returncode == 0, done.stderr
    assert str(broken) in done.stderr


def test_an_empty_class_folder_is_named(run, folder, tmp_path):
    (folder / "train" / "bird").mkdir()
    message = first_line_of(run, f"--config.data.source=folder:{folder}", "--workdir", tmp_path / "run")
    assert str(folder / "train" / "bird") in message


def test_a_work_directory_that_is_a_file_is_refused(run, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written to" in first_line_of(run, "--workdir", tmp_path / "file" / "run")


def test_debug_shows_the_traceback(run, tmp_path):
    done = run("jaxnets.main", "--config", "digits", "--config.steps=0", "--workdir", tmp_path, "--debug")
    assert "Traceback" in done.stderr
    assert "config.steps must be at least 1" in done.stderr


def test_two_runs_of_the_same_command_give_the_same_bits(run, trained, tmp_path):
    assert run("jaxnets.main", *TRAIN, "--workdir", tmp_path / "again", devices=8).returncode == 0
    assert_same_run(tmp_path / "again", trained[0])
