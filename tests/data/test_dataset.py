from dataclasses import replace

import numpy as np
import pytest

from jaxnets.config import Config, DataConfig, resolve
from jaxnets.data.dataset import open_dataset, open_evaluation
from jaxnets.errors import UserError
from jaxnets.preprocess import Preprocess
from tests.data.sources.images import fill


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
    assert sizes["validation"] == pytest.approx(144, abs=36)  # four standard deviations
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


def test_the_classes_are_said_first(tmp_path):
    for number in range(30):
        fill(tmp_path / f"n{number:02}")
    notes = open_dataset(resolve({"data": {"source": f"folder:{tmp_path}"}})).notes
    assert notes[0] == "30 classes: n00, n01, n02, n03, n04, n05, n06, n07, n08, n09, n10, n11, …"
    assert "train: 1 to 1 images of a class" in notes


def test_each_split_s_counts_are_said_and_a_rare_class_is_named(tmp_path):
    for folder, count in (("train/cat", 22), ("train/dog", 2), ("test/cat", 1)):
        fill(tmp_path / folder, count)
    notes = open_dataset(resolve({"data": {"source": f"folder:{tmp_path}"}})).notes
    assert "train: cat (22), dog (2)" in notes
    assert "test: cat (1), dog (0)" in notes
    assert any("dog has 2 training images and cat 22: what is rare is hardly learned" in note for note in notes)
    assert "rare" not in " ".join(open_dataset(resolve({})).notes)


def test_each_example_is_validated_in_one_of_the_folds():
    held = []
    for fold in range(3):
        data = open_dataset(resolve({"data": {"folds": 3, "fold": fold}}))
        assert len(data.split("train")) + len(data.split("validation")) == 1437
        held.append(data.selections["validation"][1])
    together = np.sort(np.concatenate(held))
    np.testing.assert_array_equal(together, np.sort(open_dataset(resolve({})).selections["train"][1]))


def test_shots_are_taken_of_what_validation_leaves():
    data = open_dataset(resolve({"data": {"shots": 4, "validation": 0.5}}))
    assert np.bincount(data.training.labels).tolist() == [4] * 10
    assert not set(data.selections["train"][1]) & set(data.selections["validation"][1])


def test_the_balance_is_that_of_an_epoch(tmp_path):
    for folder, count in (("train/cat", 12), ("train/dog", 4), ("test/cat", 1)):
        fill(tmp_path / folder, count)
    data = open_dataset(resolve({"data": {"source": f"folder:{tmp_path}", "balance": 1.0}}))
    assert np.bincount(data.training.labels[data.order.draw(0, 16)[0]]).tolist() == [8, 8]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"folds": 3, "validation": 0.1}, "both hold out validation"),
        ({"folds": 3, "fold": 3}, "fold 3 is not one of config.data.folds 3"),
        ({"fold": 1}, "fold 1 is not one of config.data.folds None"),
        ({"folds": 1}, "folds must be at least 2"),
        ({"test_size": 10}, "test_size 10 goes with config.data.image_size"),
        ({"balance": 1.5}, "balance must be at least 0 and at most 1"),
        ({"shots": 0}, "shots must be at least 1"),
    ],
)
def test_keys_that_contradict_one_another_are_refused(given, expected):
    with pytest.raises(UserError, match=expected):
        resolve({"data": given})


def test_training_and_test_may_have_two_sizes():
    data = open_dataset(resolve({"data": {"image_size": 6, "test_size": 10, "crop_fraction": 0.8}}))
    assert (data.preprocess.height, data.training_preprocess.height) == (10, 6)
    assert data.split("test").shape == (10, 10, 1)
    assert data.training.shape == (8, 8, 1)
    assert data.training_preprocess.mean == data.preprocess.mean


def test_how_images_are_fitted_is_the_config_s_or_the_pretrained_s():
    padded = replace(open_dataset(resolve({})).preprocess, fitting="pad")
    assert open_dataset(resolve({}), pretrained=padded).preprocess.fitting == "pad"
    assert open_dataset(resolve({"data": {"fit": "squeeze"}}), pretrained=padded).preprocess.fitting == "squeeze"


@pytest.mark.parametrize(("size", "expected"), [(12, (12, 12)), ((6, 20), (6, 20)), ([20, 6], (20, 6))])
def test_a_size_is_a_square_s_or_height_and_width(size, expected):
    config = Config(data=DataConfig(image_size=size))
    assert open_dataset(config).split("test").load(1).shape == (360, *expected, 1)


def test_the_white_level_is_part_of_the_preprocessing():
    config = resolve({"data": {"white_level": 4095}})
    preprocess = open_dataset(config).preprocess
    assert Preprocess.from_json(preprocess.to_json()).white_level == 4095


def test_images_without_a_class_stay_within_reach(tmp_path):
    for folder in ("train/cat", "train/dog", "val/cat", "test"):
        fill(tmp_path / folder)
    data = open_dataset(resolve({"data": {"source": f"folder:{tmp_path}"}}))
    assert data.unlabelled == {"test": [f"{tmp_path}/test/0.png", f"{tmp_path}/test/1.png"]}


def test_an_evaluation_holds_nothing_out_and_counts_the_model_s_classes(tmp_path):
    for name in ("dog", "cat"):
        fill(tmp_path / name, 5)
    config = resolve({"data": {"source": f"folder:{tmp_path}", "validation": 0.5, "test_share": 0.5}})
    preprocess = Preprocess(height=4, width=4, channels=1, mean=(0.5,), std=(0.5,))
    data = open_evaluation(config, preprocess, ("dog", "eel", "cat"))
    assert data.split("all").labels.tolist() == [0] * 5 + [2] * 5
    assert data.split("all").load(1).shape == (10, 4, 4, 1)


def test_the_digits_are_matched_by_name_when_evaluating():
    preprocess = open_dataset(resolve({})).preprocess
    names = tuple("9876543210")
    data = open_evaluation(resolve({}), preprocess, names)
    np.testing.assert_array_equal(data.split("test").labels, 9 - open_dataset(resolve({})).split("test").labels)
    with pytest.raises(UserError, match=r"digits has the class '3' .*, which the model does not know"):
        open_evaluation(resolve({}), preprocess, ("0", "1", "2"))
