from dataclasses import fields
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxnets.config import resolve
from jaxnets.preprocess import Preprocess
from jaxnets.recipe.augment.cut import CentreCut
from jaxnets.recipe.augment.flip import Flip
from jaxnets.recipe.augment.op import Keys, Op, augment
from jaxnets.recipe.augment.pad_and_crop import PadAndCrop
from jaxnets.recipe.augment.posterize import Posterize
from jaxnets.recipe.augment.quarter_turn import QuarterTurn
from jaxnets.recipe.augment.table import AugmentConfig, cut_and_ops
from jaxnets.train.mesh import over_data

IMAGES = np.random.default_rng(0).integers(1, 256, (64, 6, 5, 2), np.uint8)
INDEX = np.arange(64, dtype=np.int32)
SEEN = Preprocess(height=6, width=5, channels=2, mean=(0.5,) * 2, std=(0.2,) * 2)
BOTH = (PadAndCrop(padding=2), Flip(horizontal=0.5), Posterize(probability=0.5, bits=6))


@partial(jax.jit, static_argnames="seed")
def changed(images=IMAGES, index=INDEX, epoch=0, seed=0):
    return augment(BOTH[:2], images, seed=seed, epoch=np.zeros(len(index), np.int32) + epoch, index=index)


def keys(count: int, epoch: int = 0) -> Keys:
    lasting, keys = (jax.random.split(jax.random.key(seed), count) for seed in (0, epoch + 1))
    return Keys(keys, lasting, np.full(count, epoch, np.int32))


SQUARES = IMAGES[:, :5]


@pytest.mark.parametrize(
    "op",
    [op for op in (entry.default_factory() for entry in fields(AugmentConfig)) if isinstance(op, Op)],
    ids=lambda op: type(op).__name__,
)
def test_an_op_with_its_defaults_changes_nothing(op):
    np.testing.assert_array_equal(op(keys(64), SQUARES), SQUARES)


def test_without_ops_images_stay_as_they_are():
    assert cut_and_ops(resolve({}).augment, SEEN, canvas_is_input=True) == (None, ())
    assert augment((), IMAGES, seed=0, epoch=INDEX, index=INDEX) is IMAGES


def test_a_config_names_the_ops_and_their_parameters():
    spec = {"flip": {"horizontal": 0.5}, "pad_and_crop": {"padding": 3}}
    found = cut_and_ops(resolve({"augment": spec}).augment, SEEN, canvas_is_input=True)
    assert found == (None, (PadAndCrop(padding=3), Flip(horizontal=0.5)))


def test_a_cut_mirrors_images_on_its_way():
    spec = resolve({"augment": {"flip": {"horizontal": 0.5}, "pad_and_crop": {"padding": 3}}}).augment
    cut, ops = cut_and_ops(spec, SEEN, canvas_is_input=False)
    assert cut == CentreCut.of(SEEN, Flip(horizontal=0.5))
    assert ops == (PadAndCrop(padding=3),)


def test_each_image_is_one_of_its_crops_or_their_mirror_images():
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)))
    for found, original in zip(np.asarray(changed()), padded, strict=True):
        crops = [original[r : r + 6, c : c + 5] for r in range(5) for c in range(5)]
        assert any(np.array_equal(found, crop) or np.array_equal(found, crop[:, ::-1]) for crop in crops)


def test_what_happens_to_an_example_does_not_depend_on_its_batch():
    np.testing.assert_array_equal(changed()[10:20], changed(IMAGES[10:20], INDEX[10:20]))


def test_epochs_and_seeds_change_images_differently():
    first = np.asarray(changed())
    assert not np.array_equal(first, changed(epoch=1))
    assert not np.array_equal(first, changed(seed=1))


def test_two_ops_of_one_kind_draw_apart():
    once = augment(BOTH[1:2], IMAGES, seed=0, epoch=INDEX * 0, index=INDEX)
    twice = augment(BOTH[1:2] * 2, IMAGES, seed=0, epoch=INDEX * 0, index=INDEX)
    back = [np.array_equal(a, b) for a, b in zip(np.asarray(twice), IMAGES, strict=True)]
    assert 0 < np.sum(back) < 64  # all, if both drew the same
    assert not np.array_equal(once, twice)


def test_half_of_the_images_are_mirrored():
    ramp = np.broadcast_to(np.arange(2, dtype=np.uint8)[None, None, :, None], (4000, 1, 2, 1))
    flipped = Flip(horizontal=0.5)(keys(4000), ramp)
    assert np.asarray(flipped)[:, 0, 0, 0].mean() == pytest.approx(0.5, abs=0.04)  # 5 standard deviations


def test_upside_down_and_left_to_right_are_drawn_apart():
    images = np.broadcast_to(np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1), (4000, 2, 2, 1))
    corners = np.asarray(Flip(horizontal=0.5, vertical=0.5)(keys(4000), images))[:, 0, 0, 0]
    np.testing.assert_allclose(np.bincount(corners) / 4000, 0.25, atol=0.035)  # 5 standard deviations


def test_alternating_flips_show_each_image_both_ways_in_two_epochs():
    images = np.broadcast_to(np.arange(2, dtype=np.uint8)[None, None, :, None], (1000, 1, 2, 1))
    flip = Flip(horizontal=0.5, alternate=True)
    first, second, third = (np.asarray(flip(keys(1000, epoch), images))[:, 0, 0, 0] for epoch in range(3))
    assert 400 < first.sum() < 600
    np.testing.assert_array_equal(second, 1 - first)
    np.testing.assert_array_equal(third, first)


def test_an_image_is_turned_to_each_side_equally_often():
    image = np.arange(9, dtype=np.uint8).reshape(3, 3, 1)
    turned = np.asarray(QuarterTurn(probability=0.75)(keys(4000), np.broadcast_to(image, (4000, 3, 3, 1))))
    counts = [np.sum((turned == np.rot90(image, times)).all((1, 2, 3))) for times in range(4)]
    assert sum(counts) == 4000
    np.testing.assert_allclose(np.array(counts) / 4000, 0.25, atol=0.035)  # 5 standard deviations


@pytest.mark.parametrize(("mode", "name"), [("black", "constant"), ("reflect", "reflect"), ("edge", "edge")])
def test_crops_are_from_images_padded_as_asked(mode, name):
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)), mode=name)
    for found, original in zip(np.asarray(PadAndCrop(padding=2, mode=mode)(keys(64), IMAGES)), padded, strict=True):
        assert any(np.array_equal(found, original[r : r + 6, c : c + 5]) for r in range(5) for c in range(5))


def test_every_corner_of_the_crop_is_equally_likely():
    spot = np.zeros((5000, 3, 3, 1), np.uint8)
    spot[:, 1, 1] = 1
    moved = np.asarray(PadAndCrop(padding=1)(keys(5000), spot))
    np.testing.assert_allclose(moved.mean(0)[..., 0], 1 / 9, atol=0.025)  # 5.6 standard deviations


@pytest.mark.parametrize("bits", [1, 4, 7, 8])
def test_posterize_is_pillows(bits):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = np.asarray(ImageOps.posterize(Image.fromarray(levels), bits))
    found = Posterize(probability=1.0, bits=bits)(keys(1), levels[None, :, :, None])
    np.testing.assert_array_equal(np.asarray(found)[0, :, :, 0], expected)


# Every op on colours and every one that takes pixels away.
EVERYTHING = {
    "three_augment": {"probability": 0.5},
    "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "probability": 0.8},
    "grey": {"probability": 0.3},
    "posterize": {"probability": 1.0, "bits": 6},
    "cutout": {"share": 0.4, "fill": "noise", "probability": 0.5},
    "erasing": {"probability": 0.5, "fill": "colour"},
}


def test_the_ops_come_in_the_order_of_their_fields():
    seen = Preprocess(height=10, width=20, channels=3, mean=(0.5,) * 3, std=(0.2,) * 3)
    _, ops = cut_and_ops(resolve({"augment": EVERYTHING}).augment, seen, canvas_is_input=True)
    names = [type(op).__name__ for op in ops]
    assert names == ["ThreeAugment", "ColorJitter", "Grey", "Posterize", "Cut", "Erase"]
    cut, erase = ops[-2:]
    assert (cut.side, cut.mean, erase.std) == (4, seen.mean, seen.std)


def test_all_ops_give_the_same_bits_on_one_device_and_on_eight_in_float64(one_device, eight_devices, request):
    seen = Preprocess(height=6, width=5, channels=3, mean=(0.5,) * 3, std=(0.2,) * 3)
    _, ops = cut_and_ops(resolve({"augment": EVERYTHING}).augment, seen, canvas_is_input=True)
    images = np.random.default_rng(1).integers(0, 256, (64, 6, 5, 3), np.uint8)

    def augmented(mesh):
        run = jax.jit(lambda x, index: augment(ops, x, seed=0, epoch=index * 0, index=index))
        return np.asarray(run(*jax.device_put((images, INDEX), over_data(mesh))))

    first = augmented(one_device)
    assert (first != images).any((1, 2, 3)).mean() > 0.8
    request.getfixturevalue("enable_x64")
    np.testing.assert_array_equal(augmented(eight_devices), first)
