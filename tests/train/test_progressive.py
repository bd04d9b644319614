"""Runs whose images grow on the way."""

import logging
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxnets import UserError
from jaxnets.data.batch import Batch
from jaxnets.data.dataset import open_dataset
from jaxnets.models.airbench.whitening import whitening_filters
from jaxnets.recipe.augment.flip import Flip
from jaxnets.recipe.augment.op import keys_of
from jaxnets.recipe.augment.random_resized_crop import HostCut, RandomCut
from jaxnets.recipe.progressive import plan_sizes
from jaxnets.train.build import at_stage, build, steps_of
from jaxnets.train.display import Display
from jaxnets.train.hosts import Hosts
from jaxnets.train.loop import train
from jaxnets.train.start import from_images
from jaxnets.train.step import make_prepare
from tests.train.runs import arrays_of, rows_of, short

EPOCH = 1305 / 16  # steps: 1,305 of the digits are for training
GROWING = {
    "progressive": {"sizes": [6, 8], "until_epochs": [3 / EPOCH], "mixup_from": 0.1},
    "mix": {"mixup": 0.4},
    "data": {"placement": "device", "repeats": 2},
    "ema": {"decay": 0.9},
    "log_every_steps": 1,
    "eval_every_steps": 100,
}


def stages(config, data):
    """Returns model and recipe of each stage of a run."""
    model = build(config, data).model
    p = data.training_preprocess
    plan = plan_sizes(config.progressive, p.height, p.width, steps_of(config, data), 1.0)
    return [at_stage(config, data, model, stage) for stage in plan]


def batch_of(data, count=16):
    index = np.arange(count, dtype=np.int32)
    images = np.stack([data.training.read(i).image for i in index])
    return Batch(images, data.training.labels[index], index >= 0, index, index * 0, np.ones(count, np.float32))


def test_each_stage_trains_on_the_whole_images_as_pillow_resizes_them():
    config = short(progressive={"sizes": [4, 6, 8]}, augment={"pad_and_crop": {"padding": 0}})
    data = open_dataset(config)
    batch = batch_of(data)
    for (_, recipe), size in zip(stages(config, data), (4, 6, 8), strict=True):
        found = np.asarray(make_prepare(recipe, 10, 0)(batch, jnp.zeros((), jnp.int32)).image).astype(int)
        resized = [
            Image.fromarray(image[..., 0]).resize((size, size), Image.Resampling.BILINEAR) for image in batch.image
        ]
        assert np.abs(found[..., 0] - np.stack([np.asarray(image) for image in resized]).astype(int)).max() <= 1


def test_strengths_change_in_equal_parts_from_the_first_stage_to_the_last():
    spec = {"sizes": [4, 6, 8], "mixup_from": 0.0, "cutmix_from": 0.5, "magnitude_from": 5.0, "dropout_from": 0.1}
    config = short(
        progressive=spec,
        mix={"mixup": 0.4, "cutmix": 1.0},
        augment={"policy": {"name": "tensorflow_rand_augment", "tensorflow_rand_augment": {"magnitude": 10.0}}},
        model={"name": "wide_resnet40_4", "dropout": 0.3},
    )
    found = stages(config, open_dataset(config))
    assert [recipe.mix.mixup if recipe.mix else 0.0 for _, recipe in found] == [0.0, 0.2, 0.4]
    assert [recipe.mix.cutmix for _, recipe in found] == [0.5, 0.75, 1.0]
    assert [recipe.ops[-1].policy.magnitude for _, recipe in found] == [5.0, 7.5, 10.0]
    np.testing.assert_allclose([model.dropout for model, _ in found], [0.1, 0.2, 0.3])


@pytest.mark.parametrize("name", [None, "torchvision_rand_augment", "trivial_augment_wide"])
def test_a_first_magnitude_of_a_policy_that_has_none_that_could_rise_is_refused(name):
    config = short(progressive={"sizes": [4, 8], "magnitude_from": 5.0}, augment={"policy": {"name": name}})
    with pytest.raises(UserError, match=r"policy.name \w+ has no magnitude that could rise"):
        build(config, open_dataset(config))


def test_without_first_strengths_they_are_constant():
    config = short(progressive={"sizes": [4, 8]}, mix={"mixup": 0.4})
    assert [recipe.mix.mixup for _, recipe in stages(config, open_dataset(config))] == [0.4, 0.4]


def test_images_that_the_host_has_cut_are_resized_to_what_the_device_would_have_cut():
    random = RandomCut(height=32, width=32, area=(0.3, 1.0), aspect=(3 / 4, 4 / 3), filter="bilinear")
    index = np.arange(8, dtype=np.int32)
    keys, aspect = keys_of(0, seed=0, epoch=index, index=index), jnp.ones(8)
    waves = np.sin(np.linspace(0, 6, 64))[:, None, None] * np.cos(np.linspace(0, 5, 64))[None, :, None]
    canvas = np.broadcast_to(np.round(127 + 100 * waves).astype(np.uint8), (8, 64, 64, 1))
    flip = Flip(horizontal=0.5)
    by_host = random(keys, canvas, aspect)
    found = HostCut(random=replace(random, flip=flip), height=16, width=16)(keys, by_host, aspect)
    expected = replace(random, height=16, width=16, flip=flip)(keys, canvas, aspect)
    difference = np.abs(np.asarray(found, np.int32) - np.asarray(expected, np.int32))
    assert found.shape == (8, 16, 16, 1)
    assert difference.mean() < 1
    assert difference.max() <= 6


def test_a_stage_that_begins_where_layers_thaw_is_one_phase_with_them():
    thaw = {"before": "stage3", "stage_epochs": 2 / EPOCH, "thaw_epoch": 4 / EPOCH}
    config = short(steps=8, progressive={"sizes": [6, 8]}, freeze=thaw)
    phases = build(config, open_dataset(config)).phases
    assert [(phase.start, phase.change) for phase in phases[1:]] == [
        (2, "more layers train"),
        (4, "more layers train and images of 8×8"),
    ]


def test_a_last_stage_after_the_end_is_refused_or_warned_of_where_the_steps_were_given(caplog):
    spec = {"sizes": [6, 8], "until_epochs": [1.0]}
    data = open_dataset(short())
    with pytest.raises(UserError, match=r"at step 82, and the run ends at step 41, so that it never trains at 8"):
        build(short(steps=None, epochs=0.5, progressive=spec), data)
    with caplog.at_level(logging.WARNING):
        assert len(build(short(steps=4, progressive=spec), data).phases) == 2
    assert "the run ends at step 4: it never trains at 8 pixels" in caplog.text


def test_a_network_of_one_size_is_refused_with_several():
    config = short(progressive={"sizes": [6, 8]}, model={"name": "mlp"})
    with pytest.raises(UserError, match="mlp takes images of one size, and this run has several"):
        build(config, open_dataset(config))


@pytest.mark.parametrize(
    ("sizes", "pixels"),
    [({"progressive": {"sizes": [6, 8]}}, 6), ({"data": {"image_size": 8, "test_size": 9}}, 9)],
    ids=["progressive", "tested"],
)
def test_sizes_that_the_patches_of_a_transformer_do_not_divide_are_refused(sizes, pixels):
    config = short(model={"name": "vit_tiny_patch4_32"}, **sizes)
    with pytest.raises(UserError, match=f"images of {pixels}×{pixels} pixels are not of whole patches of 4×4: take "):
        build(config, open_dataset(config))


def test_a_new_transformer_has_places_for_the_images_that_it_is_trained_at():
    config = short(model={"name": "vit_tiny_patch4_32"}, progressive={"sizes": [4, 8]})
    built = build(config, open_dataset(config))
    assert built.fields["grid"] == [2, 2]
    assert built.model.grid == (2, 2)


@pytest.mark.parametrize(("name", "sizes"), [("airbench_small", [1, 8])])
def test_a_size_at_which_nothing_is_left_of_an_image_is_refused(name, sizes):
    config = short(progressive={"sizes": sizes}, model={"name": name}, augment={"pad_and_crop": {"padding": 0}})
    with pytest.raises(UserError, match="images of 1×1 pixels are too small for this Airbench"):
        build(config, open_dataset(config))


def test_padding_that_is_too_much_for_the_smallest_size_is_refused():
    config = short(progressive={"sizes": [2, 8]}, augment={"pad_and_crop": {"padding": 2}})
    with pytest.raises(UserError, match="padding 2 would crop images of 2 pixels that are all black"):
        build(config, open_dataset(config))


def test_repeats_of_images_that_nothing_changes_are_warned_of(caplog):
    config = short(data={"repeats": 2}, augment={"pad_and_crop": {"padding": 0}})
    with caplog.at_level(logging.WARNING):
        build(config, open_dataset(config))
    assert (
        "config.data.repeats 2 shows each image that often in a batch, and config.augment changes none" in caplog.text
    )


def test_a_network_whose_filters_come_of_the_images_begins_with_them_and_keeps_them():
    config = short(model={"name": "airbench_small"}, ema={"decay": 0.9})
    data = open_dataset(config)
    built = build(config, data)
    state = from_images(built.phases[0].fresh_state(), built.model, data, Hosts())
    images = np.stack([data.training.read(i).image for i in range(len(data.training))]).astype(np.float32) / 255
    p = data.preprocess
    filters = whitening_filters((images - np.float32(p.mean)) / np.float32(p.std))
    for variables in (state.variables, state.ema):
        np.testing.assert_allclose(variables["params"]["whitening"]["kernel"], filters, rtol=1e-5, atol=1e-6)
    assert built.recipe.frozen.layers == {"whitening"}


@pytest.mark.parametrize("stops", [(3, 6), pytest.param((2, 4, 5, 6), marks=pytest.mark.slow)])
def test_sessions_that_end_where_the_images_grow_and_beside_it_give_the_run_in_one_go(
    tmp_path, one_device, capsys, stops
):
    """With repeated augmentation, mixup that grows stronger and averaged weights; one optimizer goes through all."""
    train(short(steps=6, **GROWING), tmp_path / "whole", Display(), one_device)
    assert "step 3/6  images of 8×8 from here" in capsys.readouterr().out
    for steps in stops:
        train(short(steps=steps, **GROWING), tmp_path / "parts", Display(), one_device)
    whole, parts = arrays_of(tmp_path / "whole", 6), arrays_of(tmp_path / "parts", 6)
    assert whole.keys() == parts.keys()
    assert [key for key in whole if not np.array_equal(whole[key], parts[key])] == []
    training = [[row for row in rows_of(tmp_path / run) if "train/loss" in row] for run in ("whole", "parts")]
    assert training[0] == training[1]
