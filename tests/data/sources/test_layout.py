"""Which folders are splits and which are classes; what is neither understood nor harmless is refused."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from jaxnets.config import DataConfig
from jaxnets.data.sources import Source, open_labelled, open_source
from jaxnets.errors import UserError
from tests.data.sources.images import fill, tree


def _open(root: Path, **spec) -> Source:
    return open_source(DataConfig(source=f"folder:{root}", **spec), 0)


def _refused(root: Path) -> str:
    with pytest.raises(UserError) as refused:
        _open(root)
    return str(refused.value)


def _counts(source: Source) -> dict[str, list[int]]:
    classes = len(source.class_names)
    return {name: np.bincount(split.labels, minlength=classes).tolist() for name, split in source.splits.items()}


SPLITS = [
    ("train", "test"),
    ("training_set", "test_set"),
    ("seg_train/seg_train", "seg_test/seg_test"),
    ("train_set", "test_set"),
    ("Train_Set", "Test_Set"),
    ("TRAIN", "TEST"),
    ("train", "dev"),
    ("train", "eval"),
    ("train", "Validation"),
    ("Training Data", "Testing Data"),
    ("train_images", "test_images"),
    ("imgs_train", "imgs_val"),
    ("train2017", "val2017"),
    ("train-01", "test-01"),
    ("01_train", "02_valid"),
    ("trainset", "testset"),
    ("TrainImages", "TestImages"),
    ("X_train", "X_test"),
    ("birds (train)", "birds (test)"),
    ("trains", "tests"),
    ("train/train", "test/test"),
    ("train/images", "val/images"),
    ("dataset/train", "dataset/test"),
    ("a/b/training", "a/b/evaluation"),
    ("v1.0/Birds_train/data", "v1.0/Birds_test/data"),
    ("train_val", "test"),
]


@pytest.mark.parametrize(("train", "test"), SPLITS, ids=map("+".join, SPLITS))
def test_split_folders_are_not_classes(tmp_path, train, test):
    tree(tmp_path, f"{train}/cat*3", f"{train}/dog*4", f"{test}/cat", f"{test}/dog*1")
    source = _open(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert _counts(source) == {"train": [3, 4], "test": [2, 1]}


def test_three_splits_under_foreign_names_are_three_splits(tmp_path):
    tree(tmp_path, *(f"ms_{split}/{name}" for split in ("train", "dev", "test") for name in ("cat", "dog")))
    assert _counts(_open(tmp_path)) == {split: [2, 2] for split in ("train", "test", "validation")}


def test_how_the_folders_were_understood_is_said(tmp_path):
    tree(tmp_path, *(f"all/seg_{split}/seg_{split}/{name}" for split in ("train", "test") for name in ("cat", "dog")))
    fill(tmp_path / "all" / "seg_pred" / "seg_pred", 3)
    (tmp_path / "all" / "papers").mkdir()
    assert _open(tmp_path).notes == (
        f"entered {tmp_path}/all, where all images of {tmp_path} lie",
        "passed over all/seg_pred: 3 images without a label",
        "passed over all/papers: no images",
        "splits: train from all/seg_train/seg_train, test from all/seg_test/seg_test",
    )


def test_a_plain_layout_needs_no_words(tmp_path):
    tree(tmp_path, *(f"{split}/{name}" for split in ("train", "test") for name in ("cat", "dog")))
    assert _open(tmp_path).notes == ()


@pytest.mark.parametrize("test", ["test*3", "test/unknown*3", "Test Images/all*3", "test/test*3"])
@pytest.mark.parametrize("validation", [True, False])
def test_unlabelled_test_images_are_passed_over_and_kept(tmp_path, test, validation):
    tree(tmp_path, "train/cat*20", "train/dog*20", test, *(["val/cat", "val/dog"] if validation else []))
    source = _open(tmp_path)
    folder = test.split("/")[0].split("*")[0]
    assert f"passed over {folder}: 3 images without a label" in source.notes
    assert [Path(path).name for path in source.unlabelled[folder]] == ["0.png", "1.png", "2.png"]
    assert (_counts(source)["test"] == [2, 2]) == validation
    assert sum(_counts(source)["train"]) + (0 if validation else sum(_counts(source)["test"])) == 40


@pytest.mark.parametrize("extra", ["test_small", "extra", "more/extra", "pred"])
def test_images_that_lie_under_classes_are_not_called_unlabelled(tmp_path, extra):
    folders = ("train", "test", extra)
    tree(tmp_path, *(f"{folder}/{name}*2" for folder in folders for name in ("cat", "dog")))
    source = _open(tmp_path)
    said = (
        f"passed over {extra.split('/')[0]}: 4 images, in folders called as classes (cat, dog) but in none called as a "
        f"split (train, val, test)"
    )
    assert source.notes == (said,)
    assert not source.unlabelled
    assert open_labelled(DataConfig(source=f"folder:{tmp_path}"), source.class_names).notes == (said,)


CLASSES = [
    ("bus", "car", "train"),
    ("cars", "trains"),
    ("bus_station", "train_station"),
    ("bullet_train", "freight_train", "passenger_train"),
    ("toy_train", "toy_car", "train"),
    ("test_negative", "test_positive"),
    ("invalid", "valid"),
    ("developed", "trained"),
    ("1", "2", "3"),
    ("images", "masks"),
]


@pytest.mark.parametrize("names", CLASSES, ids=map("+".join, CLASSES))
def test_classes_whose_names_sound_like_splits_are_classes(tmp_path, names):
    assert _open(tree(tmp_path, *names)).class_names == tuple(sorted(names))


@pytest.mark.parametrize("names", CLASSES[:3])
def test_such_classes_within_splits_are_classes(tmp_path, names):
    tree(tmp_path, *(f"{split}/{name}" for split in ("train", "test") for name in names))
    source = _open(tmp_path)
    assert (source.class_names, set(source.splits)) == (tuple(sorted(names)), {"train", "test"})


REFUSED = {
    "splits under unknown names": (["learn/cat", "learn/dog", "check/cat", "check/dog"], "which are the classes"),
    "domains": (["amazon/a", "amazon/b", "amazon/c", "dslr/a", "dslr/b", "dslr/c"], "which are the classes"),
    "five folds of three classes": ([f"fold{i}/{c}" for i in range(5) for c in "abc"], "which are the classes"),
    "images and masks in two classes": (["a/images", "a/masks", "b/images", "b/masks"], "which are the classes"),
    "one split unknown": (["train/cat", "train/dog", "holdout/cat", "holdout/dog"], "holdout beside train"),
    "one split unknown, beside one that has no labels": (
        ["seg_train/cat", "seg_train/dog", "seg_pred", "holdout/cat", "holdout/dog"],
        "holdout beside seg_train",
    ),
    "one split under an unknown pattern": (["asl_train/a", "asl_train/b", "more"], "looks like the train split"),
    "unlike patterns": (["asl_train/a", "asl_train/b", "test_asl/a", "test_asl/b"], "look"),
    "a flat train set": (["training_set", "cat"], "cat beside training_set"),
    "test among the classes of train": (["train/cat", "train/dog", "train/test"], "no train folder but cat, dog"),
    "classes beside train": (["train/cat", "train/dog", "cat", "dog"], "cat, dog beside train"),
    "two for one split": (["train_1/cat", "train_1/dog", "train_2/cat", "train_2/dog"], "train_1 and train_2"),
    "two validation splits": (["train/a", "train/b", "val/a", "val/b", "dev/a", "dev/b"], "dev and val"),
    "splits within classes": (["cat/train", "cat/test", "dog/train", "dog/test"], "where a class should hold images"),
    "splits and classes in one name": (["train_cat", "train_dog", "test_cat", "test_dog"], "train_cat and train_dog"),
    "unlike ones": (["train_of_cats", "test_on_dogs"], "which look like splits"),
    "no train": (["test/cat", "test/dog", "val/cat", "val/dog"], "no train folder"),
    "only test": (["test/cat", "test/dog"], "no train folder: put the class folders"),
    "classes beside test": (["cat", "dog", "test"], "no train folder but cat, dog"),
    "classes beside a labelled test": (["cat", "dog", "test/cat", "test/dog"], "no train folder but cat, dog"),
    "flat splits": (["train", "test"], "found no class folders and 2 images that belong to no class"),
    "flat splits in folders": (["train/train", "test/test"], "found 1 class folder (train)"),
    "a class that is only tested": (["train/cat", "train/dog", "test/cat", "test/eel"], "has the class 'eel'"),
    "a class in other letters": (["train/Cat", "train/dog", "test/cat", "test/dog"], "did you mean 'Cat'?"),
    "one test class, misspelt": (["train/cats", "train/dog", "test/cat"], "did you mean 'cats'?"),
    "many unknown test classes": (["train/cat", "train/dog", "test/x", "test/y"], "the class 'x' (and 1 more)"),
}


@pytest.mark.parametrize(("folders", "expected"), REFUSED.values(), ids=REFUSED)
def test_a_layout_that_cannot_be_told_is_refused(tmp_path, folders, expected):
    assert expected in _refused(tree(tmp_path, *folders))


def test_an_unreadable_test_folder_is_said(tmp_path):
    tree(tmp_path, "train/cat", "train/dog", "test/cat/")
    (tmp_path / "test" / "cat" / "0.jp2").write_bytes(b"x")
    assert "passed over test: no images, but 1 of .jp2" in _open(tmp_path).notes


def test_a_class_without_validation_images_is_said(tmp_path):
    assert "val has no images of dog" in _open(tree(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog/")).notes


@pytest.mark.parametrize("layout", [["cat", "dog", "."], ["train/cat", "train/dog", "train", "test/cat", "test/dog"]])
def test_images_beside_class_folders_are_passed_over_and_counted(tmp_path, layout):
    assert any("passed over 2 images directly in" in note for note in _open(tree(tmp_path, *layout)).notes)


def test_the_only_folder_with_images_is_entered(tmp_path):
    root = tree(tmp_path, "Images/cat", "Images/dog", "Annotation/cat/")
    (root / "Annotation" / "cat" / "0.xml").write_bytes(b"x")
    assert _open(root).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    "junk",
    ["@eaDir", "lost+found", "__MACOSX", "$RECYCLE.BIN", "System Volume Information", ".ipynb_checkpoints", "#recycle"],
)
def test_what_systems_leave_behind_is_no_class(tmp_path, junk):
    tree(tmp_path, "cat", "dog", f"{junk}", f"cat/{junk}/0.png*5")
    source = _open(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert sum(map(len, source.splits.values())) == 4


def test_one_name_in_two_unicode_forms_is_one_class(tmp_path):
    mac, linux = unicodedata.normalize("NFD", "café"), unicodedata.normalize("NFC", "café")
    tree(tmp_path, f"train/{mac}*3", "train/tee", f"train/{linux}*2", f"test/{linux}", "test/tee")
    source = _open(tmp_path)
    assert source.class_names == (linux, "tee")
    assert _counts(source) == {"train": [5, 2], "test": [2, 2]}


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        (b"caf\xe9", r"caf\xe9"),
        (b"\x83e\x83X\x83g", r"\x83e\x83X\x83g"),
        (b"a\nb", r"a\nb"),
        (b"a\x1b[2Jb", r"a\x1b[2Jb"),
    ],
)
def test_a_folder_whose_name_cannot_be_shown_has_a_printable_one(tmp_path, folder, name):
    tree(tmp_path, "tee")
    fill(tmp_path / os.fsdecode(folder))
    source = _open(tmp_path)
    assert name in source.class_names
    assert source.splits["train"].name(0).isprintable()
    assert source.splits["train"].image(0).shape == (6, 8, 3)


@pytest.mark.parametrize("target", ["loop", "nowhere"])
def test_a_link_that_leads_nowhere_is_passed_over_and_said(tmp_path, target):
    tree(tmp_path, "cat", "dog")
    (tmp_path / "loop").symlink_to(tmp_path / target)
    assert f"passed over links in {tmp_path} that lead nowhere: loop" in _open(tmp_path).notes


def test_a_link_to_the_folder_above_ends(tmp_path):
    tree(tmp_path, "train/cat", "train/dog", "test/cat")
    (tmp_path / "train" / "cat" / "up").symlink_to(tmp_path)
    assert _counts(_open(tmp_path)) == {"train": [2, 2], "test": [2, 0]}


def test_a_folder_that_may_not_be_read_is_refused_by_name(tmp_path, monkeypatch):
    tree(tmp_path, "cat", "dog")
    scandir = os.scandir

    def forbidden(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    assert f"the folder {tmp_path}/dog cannot be read (Permission denied)" in _refused(tmp_path)


def _labelled(root: Path, names=("bus", "car", "train")) -> Source:
    return open_labelled(DataConfig(source=f"folder:{root}"), names)


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["bus", "car*3", "train"], {"all": [2, 3, 2]}),
        (["car", "bus"], {"all": [2, 2, 0]}),
        (["car"], {"all": [0, 2, 0]}),
        (["train"], {"all": [0, 0, 2]}),
        (["test/bus", "test/train"], {"test": [2, 0, 2]}),
        (["new/images/bus", "new/images/car"], {"all": [2, 2, 0]}),
        (["seg_test/seg_test/bus", "seg_pred/seg_pred"], {"test": [2, 0, 0]}),
        (["train/bus", "train/car", "val/car", "val/train"], {"train": [2, 2, 0], "validation": [0, 2, 2]}),
        (["train/train", "test/train"], {"train": [0, 0, 2], "test": [0, 0, 2]}),
    ],
)
def test_all_labelled_images_are_found_to_evaluate_on(tmp_path, folders, expected):
    assert _counts(_labelled(tree(tmp_path, *folders))) == expected


def test_classes_that_sound_like_splits_are_found_to_evaluate_on(tmp_path):
    names = ("bullet_train", "freight_train", "test_track")
    assert _counts(_labelled(tree(tmp_path, *names), names)) == {"all": [2, 2, 2]}


def test_classes_without_images_are_said_when_evaluating(tmp_path):
    assert _labelled(tree(tmp_path, "car")).notes[-1] == f"folder:{tmp_path} has no images of bus, train"


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["bus", "cars"], "has the class 'cars' (did you mean 'car'?)"),
        (["bus", "car", "eel"], "has the class 'eel'"),
        (["test/bus", "test/eel"], "has the class 'eel'"),
        (["."], "has no folders called as classes of the model: expected some of bus, car, train"),
        (["test", "val"], "has no split with folders called as classes of the model"),
    ],
)
def test_what_is_no_class_of_the_model_is_refused_by_name(tmp_path, folders, expected):
    with pytest.raises(UserError) as refused:
        _labelled(tree(tmp_path, *folders))
    assert expected in str(refused.value)
