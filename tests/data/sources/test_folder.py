"""Class folders: the layouts, what is passed over and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxnets.config import DataConfig
from jaxnets.data.sources import CorruptImage, Source, open_source
from jaxnets.errors import UserError


def _fill(
    folder: Path, count: int = 2, size: tuple[int, int] = (8, 6), mode: str = "RGB", suffix: str = ".png"
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new(mode, size, number).save(folder / f"{number}{suffix}")


def _two_levels(root: Path, test: str = "test") -> Path:
    for split in ("train", test):
        for name in ("cat", "dog"):
            _fill(root / split / name, count=3 if split == "train" else 2)
    return root


def _open(root: Path, seed: int = 0, **spec) -> Source:
    return open_source(DataConfig(source=f"folder:{root}", **spec), seed)


def _refused(root: Path) -> str:
    with pytest.raises(UserError) as refused:
        _open(root)
    return str(refused.value)


def _paths(source: Source, split: str) -> list[str]:
    return list(source.splits[split].paths)  # type: ignore[attr-defined]


def test_train_and_test_folders_are_the_splits(tmp_path):
    source = _open(_two_levels(tmp_path))
    assert {split: len(part) for split, part in source.splits.items()} == {"train": 6, "test": 4}


def test_labels_follow_the_sorted_folder_names(tmp_path):
    source = _open(_two_levels(tmp_path))
    assert source.class_names == ("cat", "dog")
    assert source.splits["train"].labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Test"])
def test_a_validation_folder_is_the_test_split_where_there_is_none(tmp_path, name):
    assert len(_open(_two_levels(tmp_path, test=name)).splits["test"]) == 4


def test_a_validation_folder_beside_a_test_folder_is_a_split_of_its_own(tmp_path):
    _fill(_two_levels(tmp_path) / "val" / "dog", count=5)
    source = _open(tmp_path)
    assert source.splits["validation"].labels.tolist() == [1] * 5


def test_a_image_is_the_file_s(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    _two_levels(tmp_path)
    Image.fromarray(pixels).save(tmp_path / "train" / "dog" / "0.png")
    np.testing.assert_array_equal(_open(tmp_path).splits["train"].image(3), pixels)


@pytest.mark.parametrize("layout", ["", "train"])
def test_a_test_split_is_drawn_where_there_is_none(tmp_path, layout):
    for name in ("cat", "dog"):
        _fill(tmp_path / layout / name, count=10)
    source = _open(tmp_path, test_share=0.3)
    assert np.bincount(source.splits["test"].labels).tolist() == [3, 3]


def test_the_drawn_split_holds_every_file_once(tmp_path):
    for name in ("cat", "dog"):
        _fill(tmp_path / name, count=10)
    source = _open(tmp_path)
    everything = sorted(str(path) for path in tmp_path.rglob("*.png"))
    assert sorted(_paths(source, "train") + _paths(source, "test")) == everything


def test_the_drawn_split_follows_from_the_seed(tmp_path):
    for name in ("cat", "dog"):
        _fill(tmp_path / name, count=20)
    assert _paths(_open(tmp_path, seed=1), "test") == _paths(_open(tmp_path, seed=1), "test")
    assert _paths(_open(tmp_path, seed=1), "test") != _paths(_open(tmp_path, seed=2), "test")


def test_folders_within_a_class_are_searched(tmp_path):
    _fill(_two_levels(tmp_path) / "train" / "cat" / "indoors" / "asleep", count=4)
    assert np.bincount(_open(tmp_path).splits["train"].labels).tolist() == [7, 3]


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".Png", ".webp", ".BMP"])
def test_suffixes_count_in_any_case(tmp_path, suffix):
    _fill(_two_levels(tmp_path) / "train" / "cat", count=4, suffix=suffix)
    assert len(_open(tmp_path).splits["train"]) == 10


@pytest.mark.parametrize("name", [".hidden.png", "notes.txt", "Thumbs.db"])
def test_hidden_files_and_other_files_are_passed_over(tmp_path, name):
    (_two_levels(tmp_path) / "train" / "cat" / name).write_bytes(b"x")
    assert len(_open(tmp_path).splits["train"]) == 6


def test_hidden_folders_are_no_classes(tmp_path):
    _fill(_two_levels(tmp_path) / "train" / ".ipynb_checkpoints")
    assert _open(tmp_path).class_names == ("cat", "dog")


def test_links_to_elsewhere_are_followed(tmp_path):
    _fill(tmp_path / "elsewhere" / "owl", count=3)
    root = _two_levels(tmp_path / "data")
    (root / "train" / "owl").symlink_to(tmp_path / "elsewhere" / "owl")
    assert _open(root).class_names == ("cat", "dog", "owl")


def test_a_link_to_a_folder_above_it_ends(tmp_path):
    _two_levels(tmp_path)
    (tmp_path / "train" / "cat" / "again").symlink_to(tmp_path / "train" / "cat")
    assert len(_open(tmp_path).splits["train"]) == 6


def test_a_class_called_train_is_a_class(tmp_path):
    for name in ("bus", "car", "train"):
        _fill(tmp_path / name)
    assert _open(tmp_path).class_names == ("bus", "car", "train")


def test_the_common_size_is_stated(tmp_path):
    assert _open(_two_levels(tmp_path)).image_size == (6, 8)


def test_images_of_two_sizes_have_no_common_size(tmp_path):
    _fill(_two_levels(tmp_path) / "test" / "dog", count=1, size=(8, 7))
    assert _open(tmp_path).image_size is None


def test_an_unreadable_image_leaves_the_common_size(tmp_path):
    (_two_levels(tmp_path) / "train" / "cat" / "bad.png").write_bytes(b"x")
    assert _open(tmp_path).image_size == (6, 8)


def test_colour_images_have_three_channels(tmp_path):
    assert _open(_two_levels(tmp_path)).channels == 3


def test_grey_images_have_one_channel(tmp_path):
    for name in ("cat", "dog"):
        _fill(tmp_path / name, mode="L")
    assert _open(tmp_path).channels == 1


def test_one_colour_image_among_grey_ones_makes_three_channels(tmp_path):
    for name in ("cat", "dog"):
        _fill(tmp_path / name, count=300, mode="L")
    Image.new("RGB", (8, 6)).save(tmp_path / "dog" / "77.png")
    assert _open(tmp_path).channels == 3


def test_a_large_set_is_judged_by_a_sample(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxnets.data.sources.folder._MOST_HEADERS", 3)
    source = _open(_two_levels(tmp_path))
    assert (source.image_size, source.channels) == (None, 3)


def test_a_corrupt_image_is_found_when_it_is_read_and_named(tmp_path):
    (_two_levels(tmp_path) / "train" / "cat" / "0.png").write_bytes(b"x")
    with pytest.raises(CorruptImage, match=r"train/cat/0\.png is not an image"):
        _open(tmp_path).splits["train"].image(0)


def test_a_missing_folder_is_refused(tmp_path):
    assert "nowhere does not exist; expected DIR/train/CLASS/*.jpg" in _refused(tmp_path / "nowhere")


def test_a_file_is_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"x")
    assert "a.zip is a file, not a folder" in _refused(tmp_path / "a.zip")


def test_images_outside_class_folders_are_refused(tmp_path):
    _fill(tmp_path, count=3)
    assert "found no class folders and 3 images that belong to no class" in _refused(tmp_path)


def test_split_folders_without_class_folders_are_refused(tmp_path):
    for split in ("train", "test"):
        _fill(tmp_path / split)
    message = _refused(tmp_path)
    assert f"{tmp_path / 'train'} must have two or more class folders" in message


def test_a_single_class_is_refused(tmp_path):
    _fill(tmp_path / "cat")
    assert "found 1 class folder (cat)" in _refused(tmp_path)


def test_an_empty_class_folder_is_refused_by_name(tmp_path):
    (_two_levels(tmp_path) / "train" / "eel").mkdir()
    assert f"{tmp_path / 'train' / 'eel'} has no image files" in _refused(tmp_path)


def test_a_class_folder_of_other_files_is_refused_with_what_was_found(tmp_path):
    eel = _two_levels(tmp_path) / "train" / "eel"
    eel.mkdir()
    for name in ("a.gif", "b.gif", "c.txt"):
        (eel / name).write_bytes(b"x")
    assert "found 2 of .gif, 1 of .txt" in _refused(tmp_path)


def test_a_class_that_is_only_tested_is_refused_by_name(tmp_path):
    _fill(_two_levels(tmp_path) / "test" / "eel")
    assert f"{tmp_path / 'test'} has the class 'eel', which {tmp_path / 'train'} has not" in _refused(tmp_path)


def test_a_test_folder_without_class_folders_is_refused(tmp_path):
    for name in ("cat", "dog"):
        _fill(tmp_path / "train" / name)
    _fill(tmp_path / "test")
    assert f"{tmp_path / 'test'} has no class folders" in _refused(tmp_path)
