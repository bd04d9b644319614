"""What a run draws of itself, and that nothing of the training depends on it."""

import io
import logging

import jax
import numpy as np
import pytest
from PIL import Image

from jaxnets.data.dataset import open_dataset
from jaxnets.data.pipeline import train_stream
from jaxnets.models.registry import create_model
from jaxnets.run.curves import Curve, curves, draw, read_rows
from jaxnets.train.build import build, make_recipe, model_fields
from jaxnets.train.display import Display
from jaxnets.train.drawings import CURVES, FIRST_BATCH, Drawings, NoDrawings
from jaxnets.train.first_batch import SHOWN, first_batch
from jaxnets.train.loop import _drawings, train
from jaxnets.train.step import make_prepare
from tests.train.runs import assert_same_run, rows_of, short


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, one_device):
    workdir = tmp_path_factory.mktemp("drawn") / "run"
    train(short(drawings=True, eval_every_steps=2), workdir, Display(), one_device)
    return workdir


def test_curves_and_the_first_batch_lie_in_the_run_directory_and_in_tensorboard(drawn):
    assert Image.open(drawn / CURVES).width > 600
    sheet = np.asarray(Image.open(drawn / FIRST_BATCH))
    assert len(np.unique(sheet)) > 10
    events = b"".join(file.read_bytes() for file in (drawn / "tensorboard").iterdir())
    assert events.count(b"\x89PNG") == 2
    assert b"first_batch" in events
    assert not list(drawn.glob(".curves*"))


def test_a_run_that_draws_is_the_same_run_to_the_bit(drawn, tmp_path, one_device):
    train(short(drawings=False, eval_every_steps=2), tmp_path / "run", Display(), one_device)
    assert not (tmp_path / "run" / CURVES).exists()
    assert_same_run(drawn, tmp_path / "run")


def test_what_cannot_be_drawn_is_said_once_and_stops_nothing(tmp_path, one_device, monkeypatch, caplog):
    def fail(*_):
        raise ImportError("no matplotlib here")

    monkeypatch.setattr("jaxnets.train.drawings.draw", fail)
    monkeypatch.setattr("jaxnets.train.drawings._SHARE", float("inf"))
    monkeypatch.setattr("jaxnets.train.loop.first_batch", fail)
    with caplog.at_level(logging.WARNING, "jaxnets"):
        outcome = train(short(drawings=True, eval_every_steps=1), tmp_path, Display(), one_device)
    assert outcome.finished
    said = sorted(record.getMessage() for record in caplog.records if "cannot be drawn" in record.getMessage())
    assert [text.partition(" ")[0] for text in said] == [CURVES, FIRST_BATCH]
    assert "no matplotlib here" in said[0]


def test_a_resumed_run_draws_its_whole_curve_once(tmp_path, one_device, monkeypatch):
    found = []
    monkeypatch.setattr("jaxnets.train.drawings.draw", lambda rows, best: found.append((curves(rows), best)))
    config = short(drawings=True, steps=6, eval_every_steps=2, log_every_steps=2)
    for steps in (4, 6):
        train(short(drawings=True, steps=steps, eval_every_steps=2, log_every_steps=2), tmp_path, Display(), one_device)
    loss = found[-1][0][0]
    assert loss.title == "Loss"
    assert (
        [step for step, _ in loss.lines["train"]] == [2.0, 4.0, 6.0] == [step for step, _ in loss.lines["validation"]]
    )
    assert loss.lines["train"] == [(row["step"], row["train/loss"]) for row in rows_of(tmp_path) if "train/loss" in row]
    assert config.steps == 6


def test_a_run_of_one_step_has_no_curves():
    head = [{"step": 0, "epoch": 0.0, "eval/accuracy": 0.99, "eval/loss": 0.04}, {"step": 0, "test/accuracy": 0.98}]
    assert draw(head, 0) is None  # a head that was solved on features
    assert draw([*head, {"step": 3, "epoch": 0.1, "eval/accuracy": 1.0}], 3) is not None


def test_a_process_that_keeps_no_log_draws_nothing():
    assert type(_drawings(short(drawings=True), None, None, log=None)) is NoDrawings  # type: ignore[arg-type]


def test_curves_are_drawn_again_only_when_that_costs_a_hundredth_of_the_time(monkeypatch):
    clock, drawings = [100.0], Drawings(None, None)  # type: ignore[arg-type]
    times = []

    def draw_curves(best_step):
        times.append(clock[0])
        clock[0] += 0.5

    monkeypatch.setattr("jaxnets.train.drawings.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(drawings, "_draw_curves", draw_curves)
    for _ in range(130):
        drawings.evaluated(1, None)
        clock[0] += 1
    assert times == [100.0, 150.5, 201.0]


MIXES = {
    "none": {},
    "batch": {"mixup": 0.4, "cutmix": 1.0},
    "pair": {"mixup": 0.4, "cutmix": 1.0, "mode": "pair"},
    "element": {"cutmix": 1.0, "mode": "element"},
    "automl": {"mixup": 0.4, "cutmix": 1.0, "mode": "automl"},
}


@pytest.mark.parametrize("name", MIXES)
def test_the_sheet_has_the_images_and_targets_that_the_first_step_is_trained_on(name, monkeypatch):
    # What is drawn for each row counts, not from which distribution: that of mixup takes seconds to compile.
    monkeypatch.setattr("jaxnets.recipe.mix._beta", lambda key, alpha: jax.random.uniform(key, alpha.shape))
    batch_size = 50
    config = short(
        batch_size=batch_size, mix=MIXES[name], loss={"label_smoothing": 0.1}, augment={"pad_and_crop": {"padding": 2}}
    )
    data = open_dataset(config)
    recipe = make_recipe(config, data, create_model(config.model.name, **model_fields(config, 10)))
    found = first_batch(recipe, data.training, data.order, None, classes=10, batch_size=batch_size, seed=config.seed)
    whole = next(
        train_stream(data.training, order=data.order, batch_size=batch_size, start_step=0, stop_step=1, threads=0)
    )
    expected = jax.jit(make_prepare(recipe, 10, config.seed))(whole, 0)
    assert len(found.rows) == min(batch_size, SHOWN)
    np.testing.assert_array_equal(found.index, whole.index[found.rows])
    np.testing.assert_array_equal(found.image, np.asarray(expected.image)[found.rows])
    np.testing.assert_allclose(found.target, np.asarray(expected.target)[found.rows], rtol=1e-6)


def test_boxes_that_the_host_cuts_are_those_of_the_training():
    config = short(
        batch_size=40,
        augment={"pad_and_crop": {"padding": 0}, "random_resized_crop": {"area": (0.3, 1.0)}},
        data={"image_size": 12, "cut": "host"},
    )
    data = open_dataset(config).with_host_cut()
    built = build(config, data)
    recipe = built.phases[0].recipe
    found = first_batch(recipe, data.training, data.order, built.boxes, classes=10, batch_size=40, seed=config.seed)
    whole = next(
        train_stream(
            data.training, order=data.order, batch_size=40, start_step=0, stop_step=1, threads=0, boxes=built.boxes
        )
    )
    np.testing.assert_array_equal(found.image, np.asarray(whole.image)[found.rows])


def test_the_sheet_names_the_targets(tmp_path):
    config = short()
    data = open_dataset(config)
    recipe = make_recipe(config, data, create_model(config.model.name, **model_fields(config, 10)))
    found = first_batch(recipe, data.training, data.order, None, classes=10, batch_size=16, seed=0)
    other = found.sheet(tuple("abcdefghij"))
    buffer = io.BytesIO()
    found.sheet(data.class_names).save(buffer, "PNG")
    assert np.asarray(Image.open(buffer)).shape == np.asarray(other).shape
    assert (np.asarray(Image.open(buffer)) != np.asarray(other)).any()


def test_a_row_that_was_cut_short_is_left_out_of_the_curves(tmp_path):
    rows = [
        '{"step": 1, "epoch": 0.1, "train/loss": 2.0}',
        '{"step": 2, "epoch": 0.2, "train/loss": null}',
        '{"step": 3, "tr',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows))
    assert curves(read_rows(tmp_path / "metrics.jsonl")) == [Curve("Loss", {"train": [(1.0, 2.0)]})]
    assert read_rows(tmp_path / "none") == []
    with pytest.raises(OSError, match="directory"):
        read_rows(tmp_path)
