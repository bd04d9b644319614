"""What a fingerprint tells apart, and what it does not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxnets.config import resolve
from jaxnets.data.dataset import open_dataset
from jaxnets.data.fingerprint import changes
from tests.data.sources.images import fill


def _root(folder: Path) -> Path:
    for name in ("cat", "dog"):
        fill(folder / name, 20)
    return folder


def _fingerprint(root: Path, **data) -> dict[str, int]:
    return open_dataset(resolve({"data": {"source": f"folder:{root}", **data}})).fingerprint()


def _rename(root: Path) -> None:
    (root / "cat" / "0.png").rename(root / "cat" / "0a.png")


def _replace(root: Path) -> None:
    for file in root.rglob("*.png"):
        Image.fromarray(np.full((6, 8, 3), 99, np.uint8)).save(file)


def _replace_one(root: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)).save(root / "dog" / "7.png")


def _swap_pixels(root: Path) -> None:
    """The same sizes, other bytes."""
    one, other = root / "dog" / "7.png", root / "dog" / "8.png"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def _add(root: Path) -> None:
    Image.new("RGB", (8, 6)).save(root / "dog" / "new.png")


def _move_between_classes(root: Path) -> None:
    (root / "dog" / "3.png").rename(root / "cat" / "dog3.png")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_rename, ("renamed", "images, and had")),
        (_replace, ("something else",)),
        (_replace_one, ("something else",)),
        (_swap_pixels, ("something else",)),
        (_add, ("images, and had",)),
        (_move_between_classes, ("other classes", "renamed", "images, and had")),
    ],
)
def test_data_that_has_changed_has_another_fingerprint(tmp_path, change, expected):
    before = _fingerprint(_root(tmp_path))
    change(tmp_path)
    said = changes(before, _fingerprint(tmp_path))
    assert said
    assert all(any(words in clause for words in expected) for clause in said), said


def test_data_that_has_moved_has_the_same_fingerprint(tmp_path):
    _root(tmp_path / "here").rename(tmp_path / "there")
    assert _fingerprint(_root(tmp_path / "here")) == _fingerprint(tmp_path / "there")


def test_a_test_folder_is_looked_at_too(tmp_path):
    _root(tmp_path / "train")
    _root(tmp_path / "test")
    before = _fingerprint(tmp_path)
    _swap_pixels(tmp_path / "test")
    assert changes(before, _fingerprint(tmp_path))


def test_the_content_of_arrays_counts():
    one = open_dataset(resolve({})).fingerprint()
    other = open_dataset(resolve({"data": {"validation": 0.1}})).fingerprint()
    assert not changes(one, one)
    assert changes(one, other)[0].startswith("the train split has")


def test_an_older_fingerprint_is_compared_by_what_it_says():
    now = open_dataset(resolve({})).fingerprint()
    older = {"train": 1437, "test": 360, "labels_crc32": now["labels_crc32"]}
    assert changes(older, now) == []
    assert changes({**older, "labels_crc32": 7}, now) == ["images have other classes than they had"]
    assert changes({**older, "test": 359}, now) == ["the test split has 360 images, and had 359"]
    assert changes({**older, "train": 1438, "test": 359}, now)[0].startswith("an earlier version of jaxnets drew")


def test_the_digits_of_older_runs_are_known():
    """The checksum that runs of the version before hold."""
    assert open_dataset(resolve({})).fingerprint()["labels_crc32"] == 2335087147
