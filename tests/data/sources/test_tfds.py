"""TFDS without TensorFlow: what is prepared reads back as it was, and what cannot be is refused in one message."""

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

tfds = pytest.importorskip("tensorflow_datasets")

from jaxnets.config import DataConfig  # noqa: E402
from jaxnets.data.sources import CorruptImage, Source, open_source  # noqa: E402
from jaxnets.errors import UserError  # noqa: E402
from tests.data.sources import tfds_builders  # noqa: E402

ROOT = Path(__file__).parents[3]
WRONG = np.full(20, 7, [("label", "<i4"), ("identity", "<u8")])  # of three classes


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    """Where each builder is prepared once, for all tests."""
    tfds.disable_progress_bar()
    return tmp_path_factory.mktemp("tfds")


def _open(name: str, directory: Path | None, seed: int = 0, **spec) -> Source:
    return open_source(DataConfig(source=f"tfds:{name}", directory=directory and str(directory), **spec), seed)


def _refused(name: str, directory: Path | None) -> str:
    with pytest.raises(UserError) as refused:
        _open(name, directory)
    return str(refused.value)


def _images(source: Source, split: str) -> list[tuple[bytes, int]]:
    part = source.splits[split]
    return sorted((part.image(i).tobytes(), int(part.labels[i])) for i in range(len(part)))


@pytest.mark.parametrize(("name", "channels"), [("jaxnets_rgb", 3), ("jaxnets_grey", 1), ("jaxnets_alpha", 4)])
def test_arrays_are_prepared_and_read_back_exactly(directory, name, channels):
    expected = sorted((tfds_builders.array(i, channels).tobytes(), i % 3) for i in range(20))
    assert _images(_open(name, directory), "train") == expected


def test_encoded_files_are_prepared_and_read_back_exactly(directory):
    source = _open("jaxnets_bytes", directory)
    expected = sorted((tfds_builders.array(i, 3).tobytes(), i % 3) for i in range(30))
    assert sorted(_images(source, "train") + _images(source, "test")) == expected


def test_paths_of_unpacked_files_are_prepared_and_read_back_exactly(directory, tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_builders.JaxnetsPaths, "FOLDER", str(tmp_path))
    expected = sorted((tfds_builders.array(i, 3).tobytes(), i % 3) for i in range(6))
    assert _images(_open("jaxnets_paths", directory), "train") == expected


def test_arrays_that_are_stored_as_jpeg_come_back_nearly(directory):
    part = _open("jaxnets_jpeg", directory).splits["train"]
    levels = sorted(float(part.image(i).mean()) for i in range(20))
    np.testing.assert_allclose(levels, np.arange(20) * 10, atol=1)


def test_files_that_a_builder_encodes_anew_are_prepared(directory):
    expected = sorted((tfds_builders.array(i, 3)[..., :1].tobytes(), i % 3) for i in range(20))
    assert _images(_open("jaxnets_recoded", directory), "train") == expected


def test_tfds_s_own_fashion_mnist_builder_is_prepared(directory, tmp_path, monkeypatch):
    from tensorflow_datasets.image_classification import mnist

    images = np.random.default_rng(0).integers(0, 256, (8, 28, 28), np.uint8)
    (tmp_path / "images").write_bytes(struct.pack(">4I", 0x803, 8, 28, 28) + images.tobytes())
    (tmp_path / "labels").write_bytes(struct.pack(">2I", 0x801, 8) + bytes(range(8)))
    files = {f"{s}_{k}": str(tmp_path / f) for s in ("train", "test") for k, f in [("data", "images"), ("labels",) * 2]}
    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", lambda self, urls: files)
    monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", 8)
    monkeypatch.setattr(mnist, "_TEST_EXAMPLES", 8)
    source = _open("fashion_mnist", directory)
    assert _images(source, "test") == sorted((image.tobytes(), label) for label, image in enumerate(images))


def test_tensorflow_is_not_imported(directory):
    """In a process of its own, where an attempt to load TensorFlow ends it."""
    code = f"""
import importlib.machinery, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name.split(".")[0] == "tensorflow" else None
    def create_module(self, spec):
        raise AssertionError("TensorFlow is imported")
    def exec_module(self, module): pass
sys.meta_path.insert(0, Refuse())
import tests.data.sources.tfds_builders
from jaxnets.config import DataConfig
from jaxnets.data.sources import open_source
source = open_source(DataConfig(source="tfds:jaxnets_grey", directory={str(directory / "alone")!r}), 0)
assert source.splits["test"].image(0).shape == (7, 5, 1)
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_tfds_is_left_as_it_was(directory):
    from tensorflow_datasets.core.utils import lazy_imports_utils

    _open("jaxnets_rgb", directory)
    assert "_module" not in vars(lazy_imports_utils.tensorflow)


def test_class_names_are_those_of_the_supervised_label(directory):
    assert _open("jaxnets_rgb", directory).class_names == ("cat", "dog", "eel")


@pytest.mark.parametrize(
    ("name", "size", "channels"),
    [("jaxnets_rgb", (7, 5), 3), ("jaxnets_grey", (7, 5), 1), ("jaxnets_alpha", (7, 5), 3), ("jaxnets_bytes", None, 3)],
)
def test_size_and_channels_are_those_of_the_feature(directory, name, size, channels):
    source = _open(name, directory)
    assert (source.image_size, source.channels) == (size, channels)


def test_labels_are_kept_beside_the_data(directory):
    first = _open("jaxnets_rgb", directory).splits["train"].labels
    (kept,) = (directory / "jaxnets_rgb" / "1.0.0").glob("jaxnets-index-train-*.npy")
    np.testing.assert_array_equal(np.load(kept)["label"], first)


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", np.full(20, 7, np.int32), np.zeros(3, np.int32), WRONG])
def test_labels_that_were_kept_and_are_wrong_are_read_again(directory, damage):
    first = _open("jaxnets_rgb", directory).splits["train"].labels
    (kept,) = (directory / "jaxnets_rgb" / "1.0.0").glob("jaxnets-index-train-*.npy")
    kept.write_bytes(damage) if isinstance(damage, bytes) else np.save(kept, damage)
    np.testing.assert_array_equal(_open("jaxnets_rgb", directory).splits["train"].labels, first)


def test_the_validation_split_is_the_test_split_where_there_is_none(directory, tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_builders.JaxnetsPaths, "FOLDER", str(tmp_path))
    assert len(_open("jaxnets_paths", directory).splits["test"]) == 3


def test_a_test_split_without_labels_is_passed_over_and_said(directory):
    source = _open("jaxnets_contest", directory)
    assert len(source.splits["test"]) == 4
    assert source.notes == ("passed over the test split of jaxnets_contest: it has no labels",)


def test_a_test_split_is_drawn_where_there_is_none(directory):
    source = _open("jaxnets_bytes", directory, test_share=0.3)
    assert (np.bincount(source.splits["test"].labels) >= 1).all()
    assert len(source.splits["train"]) + len(source.splits["test"]) == 30


def test_a_record_is_known_by_its_image(directory):
    split = _open("jaxnets_rgb", directory).splits["train"]
    images = [split.image(i).tobytes() for i in range(len(split))]
    assert len(np.unique(split.identities)) == len(set(images)) == 20


def test_a_prepared_folder_opens_without_its_builder(directory):
    source = _open("jaxnets_rgb", directory)
    read_only = _open(str(directory / "jaxnets_rgb" / "1.0.0"), None)
    assert _images(read_only, "test") == _images(source, "test")


def test_a_version_can_be_named(directory):
    _open("jaxnets_rgb", directory)
    assert len(_open("jaxnets_rgb:1.*.*", directory).splits["train"]) == 20


def test_an_unknown_name_is_answered_with_the_nearest(directory):
    message = _refused("fashon_mnist", directory)
    assert "no data set 'fashon_mnist' (did you mean 'fashion_mnist'?)" in message
    assert len(message) < 400


def test_an_unknown_version_is_refused_with_the_one_there_is(directory):
    assert "at version 9.0.0, only: 1.0.0" in _refused("jaxnets_grey:9.0.0", directory)


def test_a_folder_that_holds_no_data_set_is_refused(tmp_path):
    assert f"{tmp_path} is not a prepared TFDS data set" in _refused(str(tmp_path), None)


def test_a_folder_above_a_data_set_is_answered_with_the_one_to_give(directory):
    _open("jaxnets_rgb", directory)
    folder = directory / "jaxnets_rgb"
    assert f"{folder / '1.0.0'} has them" in _refused(str(folder), None)


def test_a_damaged_description_is_refused(tmp_path):
    for name in ("features.json", "dataset_info.json"):
        (tmp_path / name).write_text("{")
    assert f"{tmp_path} cannot be opened as a prepared TFDS data set" in _refused(str(tmp_path), None)


def test_features_without_a_image_are_refused_with_what_there_is(directory):
    assert "has no image (Image) among its features" in _refused("jaxnets_tensor", directory)


def test_a_builder_that_computes_with_tensorflow_is_refused_with_what_it_uses(directory):
    assert "the builder of jaxnets_needy uses tf.reverse, which needs TensorFlow" in _refused(
        "jaxnets_needy", directory
    )


def test_a_download_that_fails_is_refused_with_the_reason(directory, monkeypatch):
    monkeypatch.setattr("jaxnets.data.sources.tfds._RETRIES", 0)
    message = _refused("jaxnets_remote", directory)
    assert "cannot be downloaded" in message
    assert "Connection refused (http://127.0.0.1:1/images.zip)" in message


def test_files_without_random_access_are_refused_with_what_to_do(tmp_path):
    folder = tmp_path / "jaxnets_rgb" / "1.0.0"
    _open("jaxnets_rgb", tmp_path)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    for file in folder.glob("*.array_record-*"):
        file.rename(str(file).replace("array_record", "tfrecord"))
    message = _refused("jaxnets_rgb", tmp_path)
    assert f"prepared in {folder} as tfrecord" in message
    assert "set config.data.directory to another folder" in message


def test_labels_outside_the_classes_are_refused(tmp_path):
    _open("jaxnets_rgb", tmp_path)
    folder = tmp_path / "jaxnets_rgb" / "1.0.0"
    for kept in folder.glob("*.npy"):
        kept.unlink()
    (folder / "label.labels.txt").write_text("cat\ndog\n")
    features = folder / "features.json"
    features.write_text(features.read_text().replace('"numClasses": "3"', '"numClasses": "2"'))
    assert "should have one label in 0 … 1" in _refused(str(folder), None)


def _damage(file: Path) -> None:
    """Zeroes some of the first record's bytes."""
    data = bytearray(file.read_bytes())
    data[200:300] = bytes(100)
    file.write_bytes(data)


def test_labels_in_a_damaged_file_are_refused(tmp_path):
    _open("jaxnets_rgb", tmp_path)
    folder = tmp_path / "jaxnets_rgb" / "1.0.0"
    for path in folder.glob("*-train*"):
        path.unlink() if path.suffix == ".npy" else _damage(path)
    assert "jaxnets_rgb/train cannot be read" in _refused("jaxnets_rgb", tmp_path)


def test_a_damaged_record_is_a_corrupt_image(tmp_path):
    _open("jaxnets_rgb", tmp_path)
    (file,) = (tmp_path / "jaxnets_rgb" / "1.0.0").glob("*-test.array_record-*")
    _damage(file)
    part = _open("jaxnets_rgb", tmp_path).splits["test"]
    with pytest.raises(CorruptImage, match="jaxnets_rgb/test"):
        [part.image(index) for index in range(len(part))]


def test_without_tfds_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert "pip install tensorflow-datasets" in _refused("mnist", None)


def test_a_tfds_that_reaches_tensorflow_otherwise_is_refused(directory, monkeypatch):
    from tensorflow_datasets.core.utils import lazy_imports_utils

    monkeypatch.setattr(lazy_imports_utils, "tensorflow", object())
    assert "cannot stand in for TensorFlow in tensorflow-datasets" in _refused("jaxnets_rgb", directory)
