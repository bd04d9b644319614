"""mixup and cutmix against timm's formulas, and what they draw."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.recipe.losses.cross_entropy import SigmoidCrossEntropy, SoftmaxCrossEntropy
from jaxnets.recipe.losses.focal import Focal
from jaxnets.recipe.losses.loss import soft_target
from jaxnets.recipe.mix import Draw, Mix, MixConfig, make_mix
from jaxnets.train.mesh import over_data

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (16, 6, 9, 3), np.uint8)
LABELS = RANDOM.integers(0, 5, 16).astype(np.int32)
TARGET = np.asarray(soft_target(LABELS, 5, 0.1))


def drawn(mix: Mix, size: int = 16, seed: int = 0) -> Draw:
    """Draws for `IMAGES` in NumPy, evenly, with all and nothing among the shares."""
    random = np.random.default_rng(seed)
    count = {"batch": 1, "pair": (size + 1) // 2}.get(mix.mode, size)
    share = np.round(random.uniform(0, 1, count) * 2**16).astype(np.float32) / 2**16
    if count > 2:
        share[:3] = 0, 1, 0.75
    cut = np.arange(count) >= count // 2 if mix.mode == "automl" else random.uniform(0, 1, count) < 0.5
    if not (mix.mixup and mix.cutmix):
        cut = np.full(count, mix.cutmix > 0)
    row, column = (random.integers(0, pixels, count).astype(np.int32) for pixels in IMAGES.shape[1:3])
    return Draw(*map(jnp.asarray, (share, cut, row, column)))


@partial(jax.jit, static_argnums=0)
def mixed(mix: Mix, draw: Draw, images=IMAGES, target=TARGET):
    return mix.mix(draw, images, target)


def timms(draw: Draw, images=IMAGES, target=TARGET):
    """What `timm.data.mixup.Mixup` 1.0.31 makes of a batch with these draws."""
    size, height, width = images.shape[:3]
    count, arrays = len(draw.share), [np.asarray(x) for x in draw]
    out, targets = images.astype(float), np.empty_like(target)
    for i in range(size):
        own = {1: 0, size: i}.get(count, min(i, size - 1 - i))
        (share, cut, row, column), j = (x[own] for x in arrays), size - 1 - i
        if cut:
            tall, wide = int(height * np.sqrt(1 - share)), int(width * np.sqrt(1 - share))
            rows = np.clip([row - tall // 2, row + (tall + 1) // 2], 0, height)
            columns = np.clip([column - wide // 2, column + (wide + 1) // 2], 0, width)
            box = slice(*rows), slice(*columns)
            out[i][box] = images[j][box]
            share = 1 - np.prod([rows[1] - rows[0], columns[1] - columns[0]]) / (height * width)
        else:
            out[i] = np.rint(share * images[i] + (1 - share) * images[j].astype(float))
        targets[i] = share * target[i] + (1 - share) * target[j]
    return out, targets


@pytest.mark.parametrize("mode", ["batch", "pair", "element"])
@pytest.mark.parametrize(("mixup", "cutmix"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_images_and_targets_are_mixed_as_timms(mode, mixup, cutmix):
    mix = Mix(mixup=mixup, cutmix=cutmix, mode=mode)
    for seed in range(6):
        draw = drawn(mix, seed=seed)
        images, target = mixed(mix, draw)
        expected, targets = timms(draw)
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_allclose(target, targets, atol=1e-6)
        np.testing.assert_allclose(target.sum(-1), 1, atol=1e-6)


def test_automl_has_partners_in_each_half_and_boxes_of_even_sides():
    mix = Mix(mixup=1.0, cutmix=1.0, mode="automl")
    draw = drawn(mix)
    images, target = mixed(mix, draw)
    for i in range(16):
        (share, cut, row, column), j = (np.asarray(x)[i] for x in draw), (7 - i if i < 8 else 23 - i)
        expected = IMAGES[i].astype(float)
        if cut:  # `cutmix_mask` of google/automl's efficientnetv2/datasets.py
            tall, wide = int(6 * np.sqrt(1 - share)), int(9 * np.sqrt(1 - share))
            rows = slice(*np.clip([row - tall // 2, row + tall // 2], 0, 6))
            columns = slice(*np.clip([column - wide // 2, column + wide // 2], 0, 9))
            expected[rows, columns] = IMAGES[j][rows, columns]
            share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / 54
        else:
            expected = np.rint(share * expected + (1 - share) * IMAGES[j])
        np.testing.assert_array_equal(images[i], expected)
        np.testing.assert_allclose(target[i], share * TARGET[i] + (1 - share) * TARGET[j], atol=1e-6)


@partial(jax.jit, static_argnums=(0, 2))
def draws(mix: Mix, key, count: int) -> Draw:
    return mix.draw(key, count, 6, 9)


def test_shares_are_those_of_the_beta_distributions():
    mix = Mix(mixup=0.2, cutmix=2.0, mode="element", probability=0.75, switch=0.3)
    share, cut, row, column = (np.asarray(x) for x in draws(mix, jax.random.key(3), 8000))
    assert cut.mean() == pytest.approx(0.3, abs=0.026)  # 5 standard deviations
    for alpha, those in ((0.2, share[~cut]), (2.0, share[cut])):
        square = (alpha + 1) / (2 * (2 * alpha + 1))  # of λ ~ Beta(α, α), in the mean
        assert those.mean() == pytest.approx(0.25 + 0.75 * 0.5, abs=0.035)
        assert (those**2).mean() == pytest.approx(0.25 + 0.75 * square, abs=0.035)
    assert (share[cut] == 1).mean() == pytest.approx(0.25, abs=0.045)  # not mixed
    for middles, pixels in ((row, 6), (column, 9)):
        np.testing.assert_allclose(np.bincount(middles, minlength=pixels) / 8000, 1 / pixels, atol=0.021)


def test_automl_keeps_at_least_half_of_what_it_mixes_and_cuts_the_second_half():
    share, cut, *_ = (np.asarray(x) for x in draws(Mix(mixup=0.4, cutmix=1.0, mode="automl"), jax.random.key(0), 400))
    np.testing.assert_array_equal(cut, np.arange(400) >= 200)
    assert share[:200].min() >= 0.5
    assert share[200:].min() < 0.1
    assert len(np.unique(share)) > 350


MIX = make_mix(MixConfig(mixup=1.0, cutmix=1.0, until_epoch=2.5), steps_per_epoch=10 / 3)
run = jax.jit(MIX.__call__)


def test_from_an_epoch_on_nothing_is_mixed_and_nothing_is_compiled_again():
    for step in range(6, 11):
        images, target = run(jax.random.key(step), step, IMAGES, TARGET)
        left = np.array_equal(images, IMAGES) and np.allclose(target, TARGET, atol=1e-7)
        assert left == (step >= 9)  # 2.5 · 10 / 3 steps are 8.33
    assert run._cache_size() == 1


def test_batches_are_mixed_by_their_own_draws():
    images = {np.asarray(run(jax.random.key(seed), 0, IMAGES, TARGET)[0]).tobytes() for seed in range(6)}
    assert len(images) == 6


@pytest.mark.parametrize("mode", ["batch", "pair", "element", "automl"])
def test_the_middle_of_an_odd_batch_stays_as_it_is(mode):
    mix = Mix(mixup=1.0, mode=mode)
    draw = drawn(mix, 15)
    images, target = mixed(mix, draw, IMAGES[:15], TARGET[:15])
    expected, targets = timms(draw, IMAGES[:15], TARGET[:15])
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_allclose(target, targets, atol=1e-6)
    np.testing.assert_array_equal(images[7], IMAGES[7])


@pytest.mark.parametrize("mode", ["batch", "pair", "automl"])
def test_a_batch_is_mixed_the_same_however_it_is_sharded(eight_devices, mode):
    mix = Mix(mixup=1.0, cutmix=1.0, mode=mode)
    draw = drawn(mix)
    sharded = jax.device_put((IMAGES, TARGET), over_data(eight_devices))
    for one, eight in zip(mixed(mix, draw), mixed(mix, draw, *sharded), strict=True):
        np.testing.assert_array_equal(one, eight)


@pytest.mark.usefixtures("enable_x64")
def test_in_float64_targets_keep_their_dtype():
    target = np.eye(5)[LABELS] * 0.9 + 0.02
    for mode in ("batch", "element"):
        mix = Mix(mixup=1.0, cutmix=1.0, mode=mode)
        images, found = mixed(mix, drawn(mix), target=target)
        assert (images.dtype, found.dtype) == (np.uint8, np.float64)
        np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-12)


@pytest.mark.parametrize(
    ("loss", "label"),
    [
        (SoftmaxCrossEntropy(), LABELS),
        (SigmoidCrossEntropy(), LABELS),
        (Focal(gamma=2.0), LABELS),
        (SigmoidCrossEntropy(over_classes="mean"), RANDOM.integers(0, 2, (16, 5)).astype(np.float32)),
    ],
)
@pytest.mark.parametrize("weights", [None, np.array([0.5, 1, 2, 4, 8], np.float32)])
def test_a_loss_of_mixed_targets_is_the_mix_of_both_losses(loss, label, weights):
    target = np.asarray(soft_target(label, 5, 0.1))
    draw = drawn(Mix(mixup=1.0))
    _, new = mixed(Mix(mixup=1.0), draw, target=target)
    share = float(draw.share[0])
    logits = jnp.asarray(RANDOM.normal(0, 2, (16, 5)), jnp.float32)
    own, partner = (np.asarray(loss(logits, t, weights)) for t in (target, target[::-1]))
    np.testing.assert_allclose(loss(logits, new, weights), share * own + (1 - share) * partner, rtol=1e-5)
