"""A model on corrupted images."""

import numpy as np
import pytest

from jaxnets.data.examples import Examples
from jaxnets.data.sources import ArraySplit
from jaxnets.errors import UserError
from jaxnets.evaluate.corrupted_examples import CorruptedExamples
from jaxnets.evaluate.corruptions import COMMON, corrupt
from jaxnets.evaluate.predictions import collect
from jaxnets.evaluate.robustness import ALEXNET, ALEXNET_CLEAN, Robustness, measure
from tests.evaluate.invented import by_brightness


def _examples(n: int = 12, side: int = 16, channels: int = 3) -> tuple[Examples, np.ndarray]:
    random = np.random.default_rng(0)
    level = random.integers(60, 200, (n, 1, 1, 1))
    images = np.clip(level + random.integers(-50, 50, (n, side, side, channels)), 0, 255).astype(np.uint8)
    labels = (images.mean((1, 2, 3)) < 127.5).astype(np.int32)
    split = ArraySplit(images, labels)
    fit = by_brightness(side, channels).preprocess
    return Examples(split, np.arange(n), fit, skip_corrupt=False), images


def test_each_image_is_read_under_each_corruption():
    examples, images = _examples()
    kinds = [("contrast", 1), ("shot_noise", 4)]
    found = CorruptedExamples(examples, np.array([7, 2]), kinds, seed=3)
    assert len(found) == 4
    assert found.labels.tolist() == np.repeat(examples.labels[[7, 2]], 2).tolist()
    for i, (number, (name, severity)) in enumerate([(n, kind) for n in (7, 2) for kind in kinds]):
        expected = corrupt(images[number], name, severity, seed=3, example=number)
        np.testing.assert_array_equal(found.read(i).image, expected)


def test_errors_are_those_of_each_corruption_and_severity():
    examples, images = _examples()
    asked = by_brightness()
    predictions = collect(asked, examples, split="test")
    names = ("brightness", "contrast", "impulse_noise")
    found = measure(asked, examples, predictions, names=names, batch_size=5, threads=2)
    assert found.clean_error == 0
    for i, name in enumerate(names):
        for severity in range(1, 6):
            changed = [corrupt(image, name, severity, example=j) for j, image in enumerate(images)]
            said = np.array([x.mean() < 127.5 for x in changed]).astype(int)
            assert found.errors[i, severity - 1] == pytest.approx((said != examples.labels).mean())
    assert found.mean_error.value == pytest.approx(found.errors.mean())
    assert found.relative_error.value == pytest.approx(found.errors.mean() - found.clean_error)
    assert found.errors[0].mean() > 0  # dark images become bright


def test_the_figures_depend_on_the_seed_and_not_on_the_batches():
    examples, _ = _examples()
    asked = by_brightness()
    predictions = collect(asked, examples, split="test")
    one, two, three = (
        measure(asked, examples, predictions, names=("fog", "snow"), seed=seed, batch_size=size, threads=threads).wrong
        for seed, size, threads in ((0, 64, 1), (0, 7, 3), (1, 64, 1))
    )
    np.testing.assert_array_equal(one, two)
    assert (one != three).any()


def test_some_images_are_drawn_where_fewer_are_asked_for():
    examples, _ = _examples()
    asked = by_brightness()
    predictions = collect(asked, examples, split="test")
    found = measure(asked, examples, predictions, names=("contrast",), most=5)
    assert found.wrong.shape == (5, 1, 5)
    assert len(set(found.chosen.tolist())) == 5
    assert "5 of 12 images" in found.notes[0]
    np.testing.assert_array_equal(found.clean_wrong, np.zeros(5, bool))


def _made(errors: np.ndarray, clean: float, is_imagenet: bool) -> Robustness:
    """Returns a result with these errors `[corruptions, severities]`, of 1,000,000 images in effect."""
    steps = (np.arange(1000) + 0.5) / 1000
    return Robustness(
        names=COMMON,
        wrong=steps[:, None, None] < errors[None],
        clean_wrong=steps < clean,
        chosen=np.arange(1000),
        scale="imagenet",
        of=1000,
        seed=0,
        is_imagenet=is_imagenet,
        units=None,
    )


def test_alexnet_s_own_errors_have_an_mce_of_one():
    errors = np.repeat(np.array(list(ALEXNET.values()))[:, None], 5, 1)
    found = _made(errors, ALEXNET_CLEAN, is_imagenet=True)
    assert found.mce == pytest.approx(1, abs=2e-3)
    assert found.relative_mce == pytest.approx(1, abs=1e-2)


def test_mce_is_the_mean_of_the_errors_over_alexnet_s():
    errors = np.random.default_rng(0).integers(100, 900, (15, 5)) / 1000
    found = _made(errors, 0.25, is_imagenet=True)
    base = np.array(list(ALEXNET.values()))
    # Equations of section 3: both sums are over the five severities.
    assert found.mce == pytest.approx((errors.sum(1) / (5 * base)).mean())
    relative = (errors - 0.25).sum(1) / (5 * (base - ALEXNET_CLEAN))
    assert found.relative_mce == pytest.approx(relative.mean())
    assert found.mean_error.value == pytest.approx(errors.mean())


def test_without_a_baseline_there_is_no_mce_and_it_is_said():
    found = _made(np.full((15, 5), 0.5), 0.1, is_imagenet=False)
    assert found.mce is None
    assert found.relative_mce is None
    assert any("unnormalised" in note for note in found.notes)
    assert found.to_json()["mce"] is None


def test_the_four_more_corruptions_are_no_part_of_the_means():
    examples, _ = _examples()
    asked = by_brightness()
    predictions = collect(asked, examples, split="test")
    both, common, extra = (
        measure(asked, examples, predictions, names=names)
        for names in (("brightness", "saturate", "speckle_noise"), ("brightness",), ("saturate", "speckle_noise"))
    )
    assert both.mean_error == common.mean_error
    assert "the means are without saturate, speckle_noise" in both.notes
    assert extra.mean_error.value == pytest.approx(extra.errors.mean())


def test_grey_images_are_corrupted_in_all_ways_but_those_of_colour():
    examples, _ = _examples(channels=1)
    asked = by_brightness(channels=1)
    predictions = collect(asked, examples, split="test")
    found = measure(asked, examples, predictions, names=("saturate", "fog"))
    assert found.names == ("fog",)
    assert "without saturate: the images are grey" in found.notes
    with pytest.raises(UserError, match="saturate changes colours, and the images are grey"):
        measure(asked, examples, predictions, names=("saturate",))


def test_images_that_are_too_small_are_refused():
    examples, _ = _examples(side=6)
    asked = by_brightness(6)
    predictions = collect(asked, examples, split="test")
    with pytest.raises(UserError, match="images of 6×6 are too small"):
        measure(asked, examples, predictions)
