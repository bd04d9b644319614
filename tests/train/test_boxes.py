"""Boxes that the host cuts out of images: the same as the device's, and a run that keeps to them."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from jaxnets.data.dataset import open_dataset
from jaxnets.data.pipeline import train_stream
from jaxnets.errors import UserError
from jaxnets.recipe.augment.op import keys_of
from jaxnets.recipe.augment.random_resized_crop import RandomCut, draw_box
from jaxnets.train.build import build
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from jaxnets.train.step import make_prepare
from tests.train.runs import arrays_of, rows_of, short


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 12), ("test", 4)):
        for i, image in enumerate(load_sample_images().images):
            (folder / split / "ab"[i]).mkdir(parents=True)
            for number in range(count // 2):  # of other aspects
                part = Image.fromarray(image[10 * number :, 30 * number :]).resize((120 - 7 * number, 96))
                part.save(folder / split / "ab"[i] / f"{number}.jpg", quality=95)
    return folder


def config(folder, crop=None, **changed):
    data = {"source": f"folder:{folder}", "image_size": 32, "placement": "stream", "validation": 0.0}
    augment = {"random_resized_crop": {"area": (0.2, 1.0), **(crop or {})}, "flip": {"horizontal": 0.5}}
    fields = {"batch_size": 4, "steps": 4, "log_every_steps": 1, **changed}
    return short(**{**fields, "data": {**data, **changed.get("data", {})}}, augment=augment)


@pytest.mark.parametrize("aspect", [0.2, 0.7, 1.0, 1.5, 6.0])
def test_the_host_draws_the_device_s_boxes(aspect):
    random = RandomCut(height=8, width=8, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3), filter="random")
    index = np.arange(300, dtype=np.int32)
    keys = keys_of(2, seed=1, epoch=index % 7, index=index)
    numbers, bicubic = random.draws(keys)
    host = [random.box(row, aspect) for row in numbers.tolist()]
    draw = jax.vmap(partial(draw_box, area=random.area, ratio=random.aspect))
    np.testing.assert_allclose(host, draw(keys.fold(2).each_epoch, jnp.full(300, aspect, jnp.float32)), atol=2e-6)
    assert 100 < int(bicubic.sum()) < 200


@pytest.mark.parametrize("crop", [{}, {"filter": "random"}])
def test_what_the_host_cuts_is_what_the_device_cuts(folder, crop):
    given = config(folder, crop, data={"canvas_size": "96x120"})
    whole = open_dataset(given)
    images = []
    for data in (whole, whole.with_host_cut()):
        built = build(given, data)
        steps = {"start_step": 5, "stop_step": 7, "threads": 1}
        batches = train_stream(data.training, order=data.order, batch_size=4, boxes=built.boxes, **steps)
        prepare = make_prepare(built.recipe, 2, given.seed)
        prepared = [np.asarray(prepare(batch, 0).image) for batch in batches]
        images.append(np.concatenate(prepared).astype(int))
    assert images[0].std() > 40
    # The device cuts a canvas, whose images were resized once before, and rounds no corner to a whole pixel.
    assert np.abs(images[0] - images[1]).mean() < 6
    assert np.abs(images[0][:, :, ::-1] - images[1]).mean() > 20


def test_a_streamed_run_cuts_on_the_host_and_goes_on_to_the_same_bits(folder, tmp_path, one_device):
    train(config(folder, data={"threads": 2}), tmp_path / "whole", Display(), one_device)
    for steps, threads in ((2, 0), (4, 1)):
        train(config(folder, steps=steps, data={"threads": threads}), tmp_path / "parts", Display(), one_device)
    assert json.loads((tmp_path / "parts" / "config.json").read_text())["data"]["cut"] == "host"
    whole, parts = arrays_of(tmp_path / "whole", 4), arrays_of(tmp_path / "parts", 4)
    assert all((whole[key] == parts[key]).all() for key in whole)
    losses = [
        [row["train/loss"] for row in rows_of(tmp_path / run) if "train/loss" in row] for run in ("whole", "parts")
    ]
    assert losses[0] == losses[1]
    with pytest.raises(UserError, match="placement device cannot hold this run's images"):
        train(config(folder, steps=6, data={"placement": "device"}), tmp_path / "parts", Display(), one_device)
    with pytest.raises(UserError, match=r"config\.data\.cut: 'host' there, 'device' now"):
        train(config(folder, steps=6, data={"cut": "device"}), tmp_path / "parts", Display(), one_device)


def test_a_run_whose_images_lie_on_the_device_cuts_there_and_goes_on_so(folder, tmp_path, one_device):
    train(config(folder, steps=1, data={"placement": "auto"}), tmp_path, Display(), one_device)
    assert json.loads((tmp_path / "config.json").read_text())["data"]["cut"] == "device"
    train(config(folder, steps=2), tmp_path, Display(), one_device)
    assert json.loads((tmp_path / "config.json").read_text())["data"]["cut"] == "device"


def test_where_nothing_is_cut_at_random_the_host_cuts_nothing(tmp_path, one_device):
    outcome = train(short(data={"cut": "host", "placement": "stream"}), tmp_path, Display(), one_device)
    assert outcome.finished
    assert json.loads((tmp_path / "config.json").read_text())["data"]["cut"] is None
