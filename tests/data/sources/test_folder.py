"""Class folders: the layouts, what is passed over and what is refused."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxnets.config import DataConfig
from jaxnets.data.sources import CorruptImage, Source, open_source
from jaxnets.data.sources.folder import image_files
from jaxnets.errors import UserError
from tests.data.sources.images import fill


def _two_levels(root: Path, test: str = "test") -> Path:
    for split in ("train", test):
        for name in ("cat", "dog"):
            fill(root / split / name, count=3 if split == "train" else 2)
    return root


def _open(root: Path, seed: int = 0, **spec) -> Source:
    return open_source(DataConfig(source=f"folder:{root}", **spec), seed)


def _refused(root: Path) -> str:
    with pytest.raises(UserError) as refused:
        _open(root)
    return str(refused.value)


def _names(source: Source, split: str) -> set[str]:
    part = source.splits[split]
    return {part.name(index) for index in range(len(part))}


def _classes(root: Path, count: int, **options) -> Path:
    for name in ("cat", "dog"):
        fill(root / name, count, **options)
    return root


def test_train_and_test_folders_are_the_splits(tmp_path):
    source = _open(_two_levels(tmp_path))
    assert {split: len(part) for split, part in source.splits.items()} == {"train": 6, "test": 4}


def test_labels_follow_the_sorted_folder_names(tmp_path):
    source = _open(_two_levels(tmp_path))
    assert source.class_names == ("cat", "dog")
    assert source.splits["train"].labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_validation_folder_beside_a_test_folder_is_a_split_of_its_own(tmp_path):
    fill(_two_levels(tmp_path) / "val" / "dog", count=5)
    source = _open(tmp_path)
    assert source.splits["validation"].labels.tolist() == [1] * 5


def test_a_image_is_the_file_s(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    _two_levels(tmp_path)
    Image.fromarray(pixels).save(tmp_path / "train" / "dog" / "0.png")
    np.testing.assert_array_equal(_open(tmp_path).splits["train"].image(3), pixels)


@pytest.mark.parametrize("layout", ["", "train"])
def test_a_test_split_is_drawn_by_name_where_there_is_none(tmp_path, layout):
    _classes(tmp_path / "here" / layout, 40)
    _classes(tmp_path / "elsewhere", 40)
    one, other = _open(tmp_path / "here", test_share=0.3), _open(tmp_path / "elsewhere", test_share=0.3)
    assert _names(one, "test") == _names(other, "test")
    assert len(_names(one, "test")) == pytest.approx(24, abs=16)
    assert _names(one, "test") | _names(one, "train") == {f"{c}/{i}.png" for c in ("cat", "dog") for i in range(40)}
    assert one.notes[-1] == f"test: {len(_names(one, 'test'))} images drawn from train, about 30% of each class"


def test_the_drawn_split_follows_from_the_seed(tmp_path):
    _classes(tmp_path, 20)
    assert _names(_open(tmp_path, seed=1), "test") != _names(_open(tmp_path, seed=2), "test")


def test_renaming_and_adding_files_moves_no_other_image_across(tmp_path):
    _classes(tmp_path, 30)
    before = _names(_open(tmp_path), "test")
    (tmp_path / "cat" / "0.png").rename(tmp_path / "cat" / "zzz.png")
    fill(tmp_path / "dog" / "more", 30)
    fill(tmp_path / "ant", 30)  # a new class gives the others new numbers
    same = {f"{name}/{i}.png" for name in ("cat", "dog") for i in range(30)} - {"cat/0.png"}
    assert _names(_open(tmp_path), "test") & same == before & same


def test_folders_within_a_class_are_searched(tmp_path):
    fill(_two_levels(tmp_path) / "train" / "cat" / "indoors" / "asleep", count=4)
    assert np.bincount(_open(tmp_path).splits["train"].labels).tolist() == [7, 3]


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".jfif", ".JPE", ".Png", ".webp", ".BMP", ".tif", ".TIFF", ".gif"])
def test_suffixes_count_in_any_case(tmp_path, suffix):
    fill(_two_levels(tmp_path) / "train" / "cat", count=4, suffix=suffix)
    assert len(_open(tmp_path).splits["train"]) == 10


@pytest.mark.parametrize("name", [".hidden.png", "notes.txt", "Thumbs.db"])
def test_hidden_files_and_other_files_are_passed_over(tmp_path, name):
    (_two_levels(tmp_path) / "train" / "cat" / name).write_bytes(b"x")
    assert len(_open(tmp_path).splits["train"]) == 6


def test_links_to_elsewhere_are_followed(tmp_path):
    fill(tmp_path / "elsewhere" / "owl", count=3)
    root = _two_levels(tmp_path / "data")
    (root / "train" / "owl").symlink_to(tmp_path / "elsewhere" / "owl")
    assert _open(root).class_names == ("cat", "dog", "owl")


def test_a_link_to_a_folder_above_it_ends(tmp_path):
    _two_levels(tmp_path)
    (tmp_path / "train" / "cat" / "again").symlink_to(tmp_path / "train" / "cat")
    assert len(_open(tmp_path).splits["train"]) == 6


def test_the_common_size_is_stated(tmp_path):
    assert _open(_two_levels(tmp_path)).image_size == (6, 8)


def test_images_of_two_sizes_have_no_common_size(tmp_path):
    fill(_two_levels(tmp_path) / "test" / "dog", count=1, size=(8, 7))
    assert _open(tmp_path).image_size is None


def test_an_unreadable_image_leaves_the_common_size(tmp_path):
    (_two_levels(tmp_path) / "train" / "cat" / "bad.png").write_bytes(b"x")
    assert _open(tmp_path).image_size == (6, 8)


def test_colour_images_have_three_channels(tmp_path):
    assert _open(_two_levels(tmp_path)).channels == 3


def test_grey_images_have_one_channel(tmp_path):
    for name in ("cat", "dog"):
        fill(tmp_path / name, mode="L")
    assert _open(tmp_path).channels == 1


def test_one_colour_image_among_grey_ones_makes_three_channels(tmp_path):
    for name in ("cat", "dog"):
        fill(tmp_path / name, count=300, mode="L")
    Image.new("RGB", (8, 6)).save(tmp_path / "dog" / "77.png")
    assert _open(tmp_path).channels == 3


def test_a_sample_tells_the_size_of_many_images(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxnets.data.sources.files._MOST_HEADERS", 30)
    monkeypatch.setattr("jaxnets.data.sources.files._SAMPLE", 20)
    source = _open(_classes(tmp_path, 20, mode="L"))
    assert (source.image_size, source.channels) == ((6, 8), 1)
    assert "the size and channels of 40 images are judged by 20 of them" in source.notes


def test_a_sample_finds_that_images_differ(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxnets.data.sources.files._MOST_HEADERS", 30)
    monkeypatch.setattr("jaxnets.data.sources.files._SAMPLE", 20)
    fill(_classes(tmp_path, 20) / "cat", 10, size=(9, 9))
    assert _open(tmp_path).image_size is None


def _fill_deep(folder: Path, brightest: int, count: int = 3) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.linspace(0, brightest, 48).astype(np.uint16).reshape(6, 8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.mark.parametrize(
    ("brightest", "white_level", "expected"),
    [
        (4095, 65535, "up to 4,095 and so come out nearly black: set config.data.white_level to what white is"),
        (255, 65535, "up to 255 and so come out nearly black"),
        (1000, 16383, "up to 1,000 and so come out nearly black"),
        (5000, 4095, "up to 5,000; those above config.data.white_level 4,095 become white"),
        (65535, 65535, None),
        (30000, 65535, None),
        (4095, 4095, None),
    ],
)
def test_a_range_that_is_hardly_used_or_left_is_said(tmp_path, brightest, white_level, expected):
    for name in ("cat", "dog"):
        _fill_deep(tmp_path / name, brightest)
    notes = [note for note in _open(tmp_path, white_level=white_level).notes if "16 bits" in note]
    assert len(notes) == (expected is not None)
    assert expected is None or expected in notes[0]


def test_dark_colours_of_sixteen_bits_are_said(tmp_path):
    cv2 = pytest.importorskip("cv2")
    for name in ("cat", "dog"):
        fill(tmp_path / name, 3)
        for file in (tmp_path / name).iterdir():
            file.write_bytes(cv2.imencode(".png", np.full((6, 8, 3), 4000, np.uint16))[1].tobytes())
    assert any("convert them to 8 bits" in note for note in _open(tmp_path).notes)


def test_the_white_level_is_what_becomes_255(tmp_path):
    for name in ("cat", "dog"):
        _fill_deep(tmp_path / name, 4095)
    image = _open(tmp_path, white_level=4095).splits["train"].image(0)
    np.testing.assert_array_equal(image.reshape(-1), np.round(np.linspace(0, 4095, 48).astype(int) * 255 / 4095))


def test_files_that_are_passed_over_are_counted_and_said(tmp_path):
    root = _two_levels(tmp_path)
    for number, suffix in enumerate([".jp2", ".jp2", ".heic", "", ".AVIF", ".txt"]):
        (root / "train" / "cat" / f"x{number}{suffix}").write_bytes(b"x")
    (root / "test" / "dog" / "y.jp2").write_bytes(b"x")
    (said,) = _open(root).notes
    assert said == (
        f"passed over in the class folders of {root}: 3 of .jp2, 1 without a suffix, 1 of .avif, 1 of .heic, 1 of .txt"
        f"; convert those that are images to .jpg, .jpeg, .jfif, .jpe, .png, .webp, .bmp, .tif, .tiff, .gif"
    )


@pytest.mark.parametrize("name", ["Thumbs.db", ".DS_Store", "._0.png", "desktop.ini"])
def test_what_systems_leave_behind_is_not_counted(tmp_path, name):
    (_two_levels(tmp_path) / "train" / "cat" / name).write_bytes(b"x")
    assert _open(tmp_path).notes == ()


def test_files_that_predict_passes_over_are_said(tmp_path, caplog):
    fill(tmp_path / "new", 2)
    (tmp_path / "new" / "deep").mkdir()
    (tmp_path / "new" / "deep" / "a.jp2").write_bytes(b"x")
    assert [file.name for file in image_files([tmp_path / "new"])] == ["0.png", "1.png"]
    assert f"passed over in {tmp_path / 'new'}: 1 of .jp2; convert" in caplog.text


def test_a_file_that_is_named_is_taken_whatever_its_suffix(tmp_path):
    assert image_files([tmp_path / "a.tif"]) == [tmp_path / "a.tif"]


def test_a_folder_without_images_is_refused_with_what_it_has(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(UserError, match=r"there is no image .* in the folder .*; passed over in .*: 1 of \.heic"):
        image_files([tmp_path])


def test_a_corrupt_image_of_a_foreign_name_is_named_in_print(tmp_path):
    (_two_levels(tmp_path) / "train" / "cat" / os.fsdecode(b"!\xe9.png")).write_bytes(b"x")
    with pytest.raises(CorruptImage, match=r"train/cat/!\\xe9\.png is not an image"):
        _open(tmp_path).splits["train"].image(0)


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
    fill(tmp_path, count=3)
    assert "found no class folders and 3 images that belong to no class" in _refused(tmp_path)


def test_split_folders_without_class_folders_are_refused(tmp_path):
    for split in ("train", "test"):
        fill(tmp_path / split)
    message = _refused(tmp_path)
    assert f"{tmp_path / 'train'} must have two or more class folders" in message


def test_a_single_class_is_refused(tmp_path):
    fill(tmp_path / "cat")
    assert "found 1 class folder (cat)" in _refused(tmp_path)


def test_an_empty_class_folder_is_refused_by_name(tmp_path):
    (_two_levels(tmp_path) / "train" / "eel").mkdir()
    assert f"{tmp_path / 'train' / 'eel'} has no image files" in _refused(tmp_path)


def test_a_class_folder_of_other_files_is_refused_with_what_was_found(tmp_path):
    eel = _two_levels(tmp_path) / "train" / "eel"
    eel.mkdir()
    for name in ("a.heic", "b.heic", "c.txt"):
        (eel / name).write_bytes(b"x")
    assert "found 2 of .heic, 1 of .txt" in _refused(tmp_path)
