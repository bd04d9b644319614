"""Ops on colours against Pillow at fixed parameters, and what they draw."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from jaxnets.recipe.augment.blur import MOST, gaussian_blur
from jaxnets.recipe.augment.color_jitter import ColorJitter, Jitter, jittered, mean_grey
from jaxnets.recipe.augment.grey import Grey
from jaxnets.recipe.augment.hue import turn_hue
from jaxnets.recipe.augment.op import keys_of
from jaxnets.recipe.augment.three_augment import ThreeAugment

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (24, 9, 7, 3), np.uint8)
ORDERS = np.array(list(permutations(range(4))), np.int32)
ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def keys(count: int, epoch: int = 0, number: int = 0, seed: int = 0):
    index = np.arange(count, dtype=np.int32)
    return keys_of(number, seed=seed, epoch=np.full(count, epoch, np.int32), index=index)


def hue_turned(image: Image.Image, turn: int) -> Image.Image:
    """torchvision's `adjust_hue` of a Pillow image, whose factor is `turn` / 255."""
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue).astype(int) + turn) % 256
    return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")


def test_the_mean_grey_is_rounded_as_pillows():
    levels = np.float32([[[[2], [3]]], [[[2], [2]]], [[[255], [255]]], [[[0], [1]]]])
    expected = []
    for image in levels:  # with the factor 0, contrast leaves the mean alone
        grey = Image.fromarray(image[..., 0].astype(np.uint8))
        expected.append(np.asarray(ImageEnhance.Contrast(grey).enhance(0.0))[0, 0])
    np.testing.assert_array_equal(np.ravel(mean_grey(jnp.asarray(levels))), expected)


@pytest.mark.parametrize("turn", [0, 1, -127, 127])
def test_a_turned_hue_is_pillows(turn):
    levels = np.unique(np.r_[np.arange(0, 256, 9), 1, 2, 128, 254, 255])  # every hue that Pillow rounds its own way
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, len(levels), -1, 3).astype(np.uint8)
    expected = np.asarray(hue_turned(Image.fromarray(colours[0]), turn))
    np.testing.assert_array_equal(jax.jit(turn_hue)(colours, np.array([turn], np.int32))[0], expected)


def test_hues_that_are_whole_levels_are_rounded_as_pillows():
    whole = (
        [(85, g, 0) for g in range(86)]
        + [(255 - b, 255, 255) for b in range(0, 256, 3)]
        + [(170, 85, b) for b in range(171)]
    )
    colours = np.array([[whole]], np.uint8)
    expected = np.asarray(hue_turned(Image.fromarray(colours[0]), 3))
    np.testing.assert_array_equal(jax.jit(turn_hue)(colours, np.array([3], np.int32))[0], expected)


@pytest.mark.parametrize("chosen", [[0], [1], [2], [0, 2], [0, 1, 2]])
@pytest.mark.parametrize("turns", [False, True])
def test_colour_jitter_is_pillows_in_every_order(chosen, turns):
    factors = RANDOM.uniform(0, 2, (24, 3)).astype(np.float32)
    factors[0] = 0, 1, 2
    turn = RANDOM.integers(-127, 128, 24).astype(np.int32)
    found = jax.jit(lambda x: jittered(x, Jitter(factors, turn, ORDERS), chosen, turns=turns))(IMAGES)
    for i in range(24):
        image = Image.fromarray(IMAGES[i])
        for kind in ORDERS[i]:
            if kind in chosen:
                image = ENHANCERS[kind](image).enhance(float(factors[i, kind]))
            if kind == 3 and turns:
                image = hue_turned(image, int(turn[i]))
        np.testing.assert_array_equal(found[i], np.asarray(image))


def test_colour_jitter_draws_every_order_and_factors_of_its_ranges():
    op = ColorJitter(brightness=0.4, contrast=1.5, saturation=0.2, hue=0.1, probability=0.7)
    jitter, changed = jax.jit(jax.vmap(op.draw))(keys(6000).each_epoch)
    factors, turn = np.asarray(jitter.factors), np.asarray(jitter.turn)
    np.testing.assert_allclose(factors.min(0), [0.6, 0.0, 0.8], atol=0.005)
    np.testing.assert_allclose(factors.max(0), [1.4, 2.5, 1.2], atol=0.005)
    np.testing.assert_allclose(factors.mean(0), [1.0, 1.25, 1.0], atol=0.05)  # over 5 standard deviations
    assert (turn.min(), turn.max()) == (-25, 25)
    counts = np.unique(jitter.order, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    np.testing.assert_allclose(counts / 6000, 1 / 24, atol=0.013)  # 5 standard deviations
    assert np.mean(changed) == pytest.approx(0.7, abs=0.03)


def test_colour_jitter_changes_grey_images_where_it_needs_no_colour():
    grey = IMAGES[..., :1]
    factors = np.full((24, 3), [1.25, 0.5, 1], np.float32)
    order = np.broadcast_to(np.int32([0, 1, 2, 3]), (24, 4))
    found = jax.jit(lambda x: jittered(x, Jitter(factors, order[:, 0], order), [0, 1], turns=False))(grey)
    image = ImageEnhance.Brightness(Image.fromarray(grey[0, ..., 0])).enhance(1.25)
    np.testing.assert_array_equal(found[0, ..., 0], np.asarray(ImageEnhance.Contrast(image).enhance(0.5)))


@pytest.mark.parametrize("shape", [(12, 15), (2, 1), (1, 4)])
def test_a_gaussian_blur_is_pillows(shape):
    radius = np.r_[np.linspace(0.1, 2, 30), MOST, 1e-3].astype(np.float32)
    images = RANDOM.integers(0, 256, (len(radius), *shape, 3), np.uint8)
    found = np.asarray(jax.jit(gaussian_blur)(images, radius)).astype(int)
    for image, blurred, r in zip(images, found, radius, strict=True):
        expected = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(float(r))))
        assert np.abs(blurred - expected).max() <= 1  # a weight's last bit may differ; most are the same
        assert np.mean(blurred != expected) < 0.01


def test_three_augment_draws_each_of_its_three_equally_often():
    which, radius = jax.jit(jax.vmap(ThreeAugment(probability=0.6).draw))(keys(6000).each_epoch)
    np.testing.assert_allclose(np.bincount(which) / 6000, [0.4, 0.2, 0.2, 0.2], atol=0.032)  # 5 standard deviations
    assert (radius.min(), radius.max()) == pytest.approx((0.1, 2), abs=0.01)


JITTER = ColorJitter(brightness=0.4, hue=0.1, probability=0.5)
THREE = ThreeAugment(probability=0.8)


@pytest.mark.parametrize("op", [JITTER, THREE, Grey(probability=0.4)])
def test_colours_are_a_function_of_seed_epoch_and_index(op):
    changed = jax.jit(op.__call__)
    first, order = np.asarray(changed(keys(24), IMAGES)), RANDOM.permutation(24)
    np.testing.assert_array_equal(changed(jax.tree.map(lambda x: x[order], keys(24)), IMAGES[order]), first[order])
    assert not np.array_equal(first, changed(keys(24, epoch=1), IMAGES))
    assert not np.array_equal(first, changed(keys(24, seed=1), IMAGES))
    assert 0 < (first == IMAGES).all((1, 2, 3)).sum() < 24  # the others are changed by the op's probability


def test_an_image_of_three_augment_is_grey_solarized_blurred_or_left():
    found = np.asarray(jax.jit(THREE.__call__)(keys(24), IMAGES))
    which, radius = (np.asarray(x) for x in jax.vmap(THREE.draw)(keys(24).each_epoch))
    assert set(which) == {0, 1, 2, 3}
    for i, image in enumerate(map(Image.fromarray, IMAGES)):
        blurred = image.filter(ImageFilter.GaussianBlur(float(radius[i])))
        expected = (image, image.convert("L").convert("RGB"), ImageOps.solarize(image), blurred)[which[i]]
        assert np.abs(found[i] - np.asarray(expected, int)).max() <= (which[i] == 3)
