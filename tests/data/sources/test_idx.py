"""IDX files: what is read, and every way in which they can be wrong."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from jaxnets.config import DataConfig
from jaxnets.data.sources import Source, open_source
from jaxnets.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = {"train": RNG.integers(0, 256, (12, 5, 4), np.uint8), "t10k": RNG.integers(0, 256, (6, 5, 4), np.uint8)}
LABELS = {"train": np.arange(12, dtype=np.uint8) % 3, "t10k": np.arange(6, dtype=np.uint8) % 3}
FASHION = Path("/usr/share/datasets/fashion-mnist")


def _idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def _write(folder: Path, images=IMAGES, labels=LABELS, name="{}-{}-idx{}-ubyte", pack=lambda data: data) -> Path:
    for split in images:
        for kind, array in (("images", images[split]), ("labels", labels[split])):
            (folder / name.format(split, kind, array.ndim)).write_bytes(pack(_idx(array)))
    return folder


def _open(folder: Path | str) -> Source:
    return open_source(DataConfig(source=f"idx:{folder}"), seed=0)


def _refused(folder: Path | str) -> str:
    with pytest.raises(UserError) as refused:
        _open(folder)
    return str(refused.value)


@pytest.mark.parametrize("name", ["{}-{}-idx{}-ubyte", "{}-{}.idx{}-ubyte", "qmnist-{}-{}-idx{}-ubyte"])
def test_images_are_those_of_the_file(tmp_path, name):
    read = _open(_write(tmp_path, name=name)).splits["test"]
    np.testing.assert_array_equal([read.image(i)[..., 0] for i in range(len(read))], IMAGES["t10k"])


def test_labels_are_those_of_the_file(tmp_path):
    np.testing.assert_array_equal(_open(_write(tmp_path)).splits["train"].labels, LABELS["train"])


def test_gzipped_files_read_as_plain_ones(tmp_path):
    _write(tmp_path, name="{}-{}-idx{}-ubyte.gz", pack=gzip.compress)
    np.testing.assert_array_equal(_open(tmp_path).splits["train"].image(3)[..., 0], IMAGES["train"][3])


def test_a_file_that_was_unpacked_and_kept_its_gz_is_read(tmp_path):
    _write(tmp_path, name="{}-{}-idx{}-ubyte.gz")
    assert len(_open(tmp_path).splits["train"]) == 12


def test_size_and_channels_are_stated(tmp_path):
    source = _open(_write(tmp_path))
    assert (source.image_size, source.channels) == ((5, 4), 1)


def test_colour_images_of_four_dimensions_are_read(tmp_path):
    images = {split: RNG.integers(0, 256, (len(LABELS[split]), 5, 4, 3), np.uint8) for split in LABELS}
    source = _open(_write(tmp_path, images=images))
    assert source.channels == 3
    np.testing.assert_array_equal(source.splits["test"].image(2), images["t10k"][2])


def test_classes_are_called_by_their_labels_where_nothing_names_them(tmp_path):
    assert _open(_write(tmp_path)).class_names == ("0", "1", "2")


def test_classes_are_called_as_the_list_says(tmp_path):
    (_write(tmp_path) / "classes.txt").write_text("coat\nbag\nboot\n")
    assert _open(tmp_path).class_names == ("coat", "bag", "boot")


def test_emnist_images_are_turned_upright(tmp_path):
    _write(tmp_path, name="emnist-digits-{}-{}-idx{}-ubyte")
    np.testing.assert_array_equal(_open(tmp_path).splits["train"].image(1)[..., 0], IMAGES["train"][1].T)


def test_labels_from_1_become_classes_from_0_and_keep_their_names(tmp_path):
    source = _open(_write(tmp_path, labels={split: labels + 1 for split, labels in LABELS.items()}))
    assert source.class_names == ("1", "2", "3")
    np.testing.assert_array_equal(source.splits["train"].labels, LABELS["train"])


def test_emnist_letters_take_their_names_from_the_mapping(tmp_path):
    _write(tmp_path, labels={s: v + 1 for s, v in LABELS.items()}, name="emnist-letters-{}-{}-idx{}-ubyte")
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65 97\n2 66 98\n3 67 99\n")
    source = _open(tmp_path)
    assert source.class_names == ("A/a", "B/b", "C/c")
    np.testing.assert_array_equal(source.splits["train"].labels, LABELS["train"])


def test_one_of_several_sets_in_a_folder_can_be_chosen(tmp_path):
    _write(tmp_path)
    _write(tmp_path, images={s: 255 - v for s, v in IMAGES.items()}, name="kmnist-{}-{}-idx{}-ubyte")
    image = _open(tmp_path / "kmnist").splits["train"].image(0)
    np.testing.assert_array_equal(image[..., 0], 255 - IMAGES["train"][0])


@pytest.mark.skipif(not FASHION.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist_is_read_whole():
    source = _open(FASHION)
    counts = {split: np.bincount(part.labels).tolist() for split, part in source.splits.items()}
    assert counts == {"train": [6000] * 10, "test": [1000] * 10}


def test_several_sets_in_a_folder_are_refused_by_name(tmp_path):
    _write(tmp_path, name="emnist-letters-{}-{}-idx{}-ubyte")
    _write(tmp_path, name="emnist-digits-{}-{}-idx{}-ubyte")
    assert "2 data sets: emnist-digits, emnist-letters; choose one" in _refused(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    assert "nowhere does not exist" in _refused(tmp_path / "nowhere")


def test_an_empty_folder_is_refused_with_the_names_that_are_expected(tmp_path):
    assert "train-images-idx3-ubyte[.gz], train-labels-idx1-ubyte[.gz], t10k-images" in _refused(tmp_path)


def test_a_folder_above_the_files_is_refused_with_where_they_are(tmp_path):
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    raw = _write(tmp_path / "MNIST" / "raw")
    assert f"they are in {raw}" in _refused(tmp_path)


def test_a_missing_file_is_refused_by_name(tmp_path):
    (_write(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
    assert "lacks the labels of the test split, t10k-labels-idx1-ubyte" in _refused(tmp_path)


def test_a_wrong_magic_number_is_refused_with_both(tmp_path):
    (_write(tmp_path) / "train-images-idx3-ubyte").write_bytes(b"<!DOCTYPE html>")
    message = _refused(tmp_path)
    assert "train-images-idx3-ubyte" in message
    assert "expected the magic number 0x00000803 or 0x00000804" in message
    assert "found 0x3c21444f" in message


def test_labels_in_place_of_images_are_refused(tmp_path):
    folder = _write(tmp_path)
    (folder / "train-labels-idx1-ubyte").write_bytes(_idx(IMAGES["train"]))
    assert "not an IDX file of labels: expected the magic number 0x00000801" in _refused(folder)


def test_an_empty_file_is_refused(tmp_path):
    (_write(tmp_path) / "train-images-idx3-ubyte").write_bytes(b"")
    assert "found 0 bytes in all" in _refused(tmp_path)


@pytest.mark.parametrize("change", [-1, 1])
def test_data_of_another_length_than_the_header_says_are_refused(tmp_path, change):
    data = _idx(IMAGES["train"])
    (_write(tmp_path) / "train-images-idx3-ubyte").write_bytes(data[:change] if change < 0 else data + b"\0")
    assert f"has {240 + change} bytes of data instead of the 12 × 5 × 4 = 240" in _refused(tmp_path)


@pytest.mark.parametrize("keep", [30, -9])
def test_a_gzip_stream_that_was_cut_off_is_refused(tmp_path, keep):
    _write(tmp_path, name="{}-{}-idx{}-ubyte.gz", pack=lambda data: gzip.compress(data)[:keep])
    assert "its gzip stream ends early; fetch it again" in _refused(tmp_path)


def test_gzipped_data_that_go_on_after_the_header_s_length_are_refused(tmp_path):
    _write(tmp_path, name="{}-{}-idx{}-ubyte.gz", pack=lambda data: gzip.compress(data + bytes(10**6)))
    assert "has more than the 12 × 5 × 4 = 240 bytes" in _refused(tmp_path)


def test_damaged_gzip_data_are_refused(tmp_path):
    def damage(data: bytes) -> bytes:
        packed = bytearray(gzip.compress(data))
        packed[10:20] = b"\xff" * 10
        return bytes(packed)

    _write(tmp_path, name="{}-{}-idx{}-ubyte.gz", pack=damage)
    assert "train-images-idx3-ubyte.gz cannot be read" in _refused(tmp_path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_header_that_claims_more_than_the_file_can_hold_is_refused(tmp_path, suffix):
    claim = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**31, 28, 28) + bytes(100)
    folder = _write(tmp_path, name="{}-{}-idx{}-ubyte" + suffix, pack=gzip.compress if suffix else bytes)
    (folder / f"train-images-idx3-ubyte{suffix}").write_bytes(gzip.compress(claim) if suffix else claim)
    assert "2147483648 × 28 × 28 = 1683627180032 bytes that its header claims" in _refused(folder)


def test_other_numbers_of_images_and_labels_are_refused_with_both(tmp_path):
    _write(tmp_path, labels={**LABELS, "train": LABELS["train"][:9]})
    message = _refused(tmp_path)
    assert "has 12 images" in message
    assert "train-labels-idx1-ubyte 9 labels" in message


def test_splits_of_other_sizes_are_refused_with_both(tmp_path):
    _write(tmp_path, images={**IMAGES, "t10k": np.zeros((6, 7, 7), np.uint8)})
    assert "found (5, 4, 1) and (7, 7, 1)" in _refused(tmp_path)


def test_too_few_class_names_are_refused(tmp_path):
    (_write(tmp_path) / "classes.txt").write_text("coat\nbag\n")
    assert "classes.txt has 2 names, and the labels go from 0 to 2" in _refused(tmp_path)


def test_a_class_name_that_stands_twice_is_refused(tmp_path):
    (_write(tmp_path) / "classes.txt").write_text("coat\nbag\ncoat\n")
    assert "found 'coat' twice" in _refused(tmp_path)


def test_a_mapping_that_lacks_a_label_is_refused_with_the_label(tmp_path):
    _write(tmp_path, name="emnist-letters-{}-{}-idx{}-ubyte")
    (tmp_path / "emnist-letters-mapping.txt").write_text("0 65\n1 66\n")
    assert "label 2 at position 2 of" in _refused(tmp_path)


def test_a_mapping_that_is_none_is_refused_with_its_line(tmp_path):
    _write(tmp_path, name="emnist-letters-{}-{}-idx{}-ubyte")
    (tmp_path / "emnist-letters-mapping.txt").write_text("0 65\n1 B\n")
    assert "emnist-letters-mapping.txt, line 2" in _refused(tmp_path)
