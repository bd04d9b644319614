import jax
import numpy as np
import pytest

from jaxnets.data.augment import Augmentation
from jaxnets.data.batch import Batch

IMAGES = np.random.default_rng(0).integers(1, 256, (64, 6, 5, 2), np.uint8)


def batch(chosen=slice(0, 64), epoch: int = 0) -> Batch:
    images = IMAGES[chosen]
    index = np.arange(64, dtype=np.int32)[chosen]
    full = np.ones(len(images), bool)
    return Batch(images, np.zeros(len(images), np.int32), full, index, np.full(len(images), epoch, np.int32))


CROP_AND_FLIP = Augmentation(crop_padding=2, flip=True)
augment = jax.jit(CROP_AND_FLIP.__call__)


def test_without_options_images_stay_as_they_are():
    np.testing.assert_array_equal(Augmentation()(batch(), 0), IMAGES)


def test_each_image_is_one_of_its_crops_or_their_mirror_images():
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)))
    for changed, original in zip(np.asarray(augment(batch(), 0)), padded, strict=True):
        crops = [original[r : r + 6, c : c + 5] for r in range(5) for c in range(5)]
        assert any(np.array_equal(changed, crop) or np.array_equal(changed, crop[:, ::-1]) for crop in crops)


def test_what_happens_to_an_example_does_not_depend_on_its_batch():
    np.testing.assert_array_equal(augment(batch(), 0)[10:20], augment(batch(slice(10, 20)), 0))


def test_epochs_and_seeds_change_images_differently():
    first = np.asarray(augment(batch(), 0))
    assert not np.array_equal(first, augment(batch(epoch=1), 0))
    assert not np.array_equal(first, augment(batch(), 1))


def test_half_of_the_images_are_mirrored():
    ramp = np.broadcast_to(np.arange(2, dtype=np.uint8)[None, None, :, None], (4000, 1, 2, 1))
    index = np.arange(4000, dtype=np.int32)
    flipped = Augmentation(flip=True)(Batch(ramp, index, index >= 0, index, index * 0), 0)
    assert np.asarray(flipped)[:, 0, 0, 0].mean() == pytest.approx(0.5, abs=0.04)  # 5 standard deviations


def test_every_corner_of_the_crop_is_equally_likely():
    spot = np.zeros((5000, 3, 3, 1), np.uint8)
    spot[:, 1, 1] = 1
    index = np.arange(5000, dtype=np.int32)
    moved = np.asarray(Augmentation(crop_padding=1)(Batch(spot, index, index >= 0, index, index * 0), 0))
    np.testing.assert_allclose(moved.mean(0)[..., 0], 1 / 9, atol=0.025)  # 5.6 standard deviations
