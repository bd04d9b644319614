import numpy as np
import pytest

from jaxnets.config import resolve
from jaxnets.data.dataset import open_dataset
from jaxnets.errors import UserError


def test_mean_and_standard_deviation_are_measured_on_the_training_split():
    data = open_dataset(resolve({}))
    pixels = data.split("train").load(1) / 255
    assert data.preprocess.mean == (pytest.approx(pixels.mean(), abs=1e-4),)
    assert data.preprocess.std == (pytest.approx(pixels.std(), abs=1e-4),)


def test_given_mean_and_standard_deviation_are_used():
    data = open_dataset(resolve({"data": {"mean": [0.5], "std": [0.25]}}))
    assert (data.preprocess.mean, data.preprocess.std) == ((0.5,), (0.25,))


def test_validation_is_held_out_of_train_and_leaves_test_alone():
    whole, divided = open_dataset(resolve({})), open_dataset(resolve({"data": {"validation": 0.1}}))
    sizes = {name: len(split) for name, split in divided.splits.items()}
    assert sizes["test"] == len(whole.split("test")) == 360
    assert sizes["train"] + sizes["validation"] == len(whole.split("train")) == 1437
    assert sizes["validation"] == pytest.approx(144, abs=5)
    together = np.concatenate([divided.split(name).load(1) for name in ("train", "validation")])
    np.testing.assert_array_equal(np.unique(together, axis=0), np.unique(whole.split("train").load(1), axis=0))


def test_images_are_resized_to_the_size_asked_for():
    data = open_dataset(resolve({"data": {"image_size": 12, "channels": 3}}))
    assert data.split("test").load(2).shape == (360, 12, 12, 3)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"data": {"num_classes": 12}}, r"num_classes is 12, but digits has 10 classes"),
        (
            {"data": {"mean": [0.5] * 3, "std": [0.5] * 3}},
            r"config.data.mean needs 1 numbers, one per channel, found 3",
        ),
    ],
)
def test_contradictions_with_the_source_are_refused(given, expected):
    with pytest.raises(UserError, match=expected):
        open_dataset(resolve(given))


def test_an_unknown_split_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"no split 'tests' \(did you mean 'test'\?\); it has train, test"):
        open_dataset(resolve({})).split("tests")


def test_the_fingerprint_follows_the_data_and_not_its_place():
    first, again = open_dataset(resolve({})), open_dataset(resolve({}))
    other = open_dataset(resolve({"data": {"validation": 0.1}}))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
