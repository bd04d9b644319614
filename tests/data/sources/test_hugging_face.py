"""Data sets of Hugging Face `datasets`, from folders that a Hub's data set could have been saved to."""

import sys
from concurrent.futures import ThreadPoolExecutor

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from jaxnets.config import DataConfig, TableConfig
from jaxnets.data.sources import arrow_images, open_labelled, open_source, with_absolute_paths
from jaxnets.data.sources.base import CorruptImage
from jaxnets.errors import UserError
from tests.data.sources import tables
from tests.data.sources.images import fill


@pytest.fixture(autouse=True, scope="module")
def quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


IMAGES = [{"bytes": tables.encoded(n), "path": None} for n in range(8)]


def _save(folder, columns: dict, features: dict, splits: dict[str, slice] | None = None) -> DataConfig:
    """Saves a data set as `save_to_disk` does, divided as asked."""
    whole = datasets.Dataset.from_dict(columns, datasets.Features(features))
    if splits is None:
        whole.save_to_disk(folder)
    else:
        parts = {name: whole.select(range(8)[chosen]) for name, chosen in splits.items()}
        datasets.DatasetDict(parts).save_to_disk(folder)
    return DataConfig(source=f"hf:{folder}")


FEATURES = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["bee", "ant"])}
COLUMNS = {"image": IMAGES, "label": [0, 1] * 4}


def test_splits_and_names_are_those_of_the_data_set(tmp_path):
    parts = {"train": slice(0, 4), "validation": slice(4, 6), "test": slice(6, 8)}
    source = open_source(_save(tmp_path / "d", COLUMNS, FEATURES, parts), 0)
    assert source.class_names == ("bee", "ant")
    assert {name: len(part) for name, part in source.splits.items()} == {"train": 4, "validation": 2, "test": 2}
    assert source.splits["test"].labels.tolist() == [0, 1]
    assert (source.image_size, source.channels) == ((8, 8), 3)


def test_images_come_as_they_are_stored_from_any_thread(tmp_path):
    part = open_labelled(_save(tmp_path / "d", COLUMNS, FEATURES), ("ant", "bee")).splits["all"]
    assert part.labels.tolist() == [1, 0] * 4
    with ThreadPoolExecutor(8) as pool:
        order = [5, 0, 7, 3] * 8
        for index, image in zip(order, pool.map(part.image, order), strict=True):
            assert np.array_equal(image, datasets.Image().decode_example(IMAGES[index]))


def test_labels_may_be_texts_lists_or_unknown(tmp_path):
    texts = {"image": datasets.Image(), "breed": datasets.Value("string")}
    spec = _save(tmp_path / "texts", {"image": IMAGES, "breed": list("abababab")}, texts)
    assert open_source(spec, 0).class_names == ("a", "b")
    lists = {**FEATURES, "label": datasets.List(FEATURES["label"])}
    spec = _save(tmp_path / "lists", {"image": IMAGES, "label": [[0], [], [1, 0], [1]] * 2}, lists)
    part = open_labelled(spec, ("bee", "ant")).splits["all"]
    assert part.targets.tolist() == [[1, 0], [0, 0], [1, 1], [0, 1]] * 2
    parts = {"train": slice(0, 6), "test": slice(6, 8)}
    spec = _save(tmp_path / "unknown", {"image": IMAGES, "label": [0, 1] * 3 + [-1] * 2}, FEATURES, parts)
    source = open_source(spec, 0)
    assert sum(map(len, source.splits.values())) == 6
    assert any("passed over 2 images" in note for note in source.notes)


def test_one_of_several_labels_is_named_by_its_key(tmp_path):
    both = {
        "img": datasets.Image(),
        "fine": datasets.ClassLabel(names=["bee", "ant", "cat"]),
        "coarse": datasets.ClassLabel(names=["insect", "mammal"]),
    }
    columns = {"img": IMAGES, "fine": [0, 1, 2, 2] * 2, "coarse": [0, 0, 1, 1] * 2}
    spec = _save(tmp_path / "d", columns, both)
    with pytest.raises(UserError, match=r"no column that is called like a label .*found 'img', 'fine', 'coarse'"):
        open_source(spec, 0)
    named = DataConfig(source=spec.source, table=TableConfig(label="coarse"))
    assert open_source(named, 0).class_names == ("insect", "mammal")


def test_a_folder_of_images_is_read_by_its_paths_and_no_other_file_is(tmp_path):
    for split in ("train", "test"):
        for label in ("a", "b"):
            fill(tmp_path / "d" / split / label, 3)
    spec = DataConfig(source=f"hf:{tmp_path / 'd'}", directory=str(tmp_path / "hf"))
    source = open_source(spec, 0)
    assert source.splits["test"].image(0).shape == (6, 8, 3)
    Image.new("RGB", (8, 6)).save(tmp_path / "secret.png")
    (tmp_path / "e").mkdir()
    images = [*IMAGES[:7], {"bytes": None, "path": str(tmp_path / "secret.png")}]
    table = pyarrow.table({"image": images, "label": list("abababab")})
    pyarrow.parquet.write_table(table, tmp_path / "e" / "train.parquet")
    spec = DataConfig(source=f"hf:{tmp_path / 'e'}", directory=str(tmp_path / "hf"))
    part = open_labelled(spec, ("a", "b")).splits["train"]
    with pytest.raises(CorruptImage, match="lies outside the folders of the data set"):
        part.image(7)


def test_bytes_are_read_for_their_hashes_once(tmp_path, monkeypatch):
    spec = _save(tmp_path / "d", COLUMNS, FEATURES)
    before = open_labelled(spec, ("bee", "ant")).splits["all"].identities
    monkeypatch.setattr(arrow_images, "_read", None)
    assert np.array_equal(open_labelled(spec, ("bee", "ant")).splits["all"].identities, before)
    assert len(set(before.tolist())) == 8


def test_what_cannot_be_opened_is_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    no_images = {"image": datasets.Value("string"), "label": FEATURES["label"]}
    spec = _save(tmp_path / "d", {"image": ["x.png", "y.png"], "label": [0, 1]}, no_images)
    cases = {
        spec.source: "must hold images (the feature Image)",
        f"hf:{tmp_path / 'none'}": "leads to no folder and no file",
        f"hf:{tmp_path / 'empty'}": "cannot be opened",
        "hf:a:b:c": "must be hf:OWNER/NAME",
    }
    for source, expected in cases.items():
        with pytest.raises(UserError) as refused:
            open_source(DataConfig(source=source), 0)
        assert expected in str(refused.value)
        assert "\n" not in str(refused.value)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'jaxnets\[hf\]'"):
        open_source(spec, 0)


def test_a_name_of_the_hub_stays_and_a_folder_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    found = [with_absolute_paths(DataConfig(source=f"hf:{name}")).source for name in ("owner/name", "here", "./x")]
    assert found == ["hf:owner/name", f"hf:{tmp_path / 'here'}", f"hf:{tmp_path / 'x'}"]


def test_numbers_are_positions_also_among_names_that_are_numbers(tmp_path):
    stars = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["1", "2", "3", "4", "5"])}
    source = open_source(_save(tmp_path / "d", {"image": IMAGES, "label": [1, 2, 3, 4] * 2}, stars), 0)
    found = {source.class_names[label] for part in source.splits.values() for label in part.labels}
    assert found == {"2", "3", "4", "5"}
    assert any("read as positions among its classes: 0 is 1" in note for note in source.notes)


def test_splits_are_understood_together_or_refused(tmp_path):
    train = datasets.Dataset.from_dict({name: each[:6] for name, each in COLUMNS.items()}, datasets.Features(FEATURES))

    def opened(name, columns, features):
        test = datasets.Dataset.from_dict(columns, datasets.Features(features))
        datasets.DatasetDict({"train": train, "test": test}).save_to_disk(tmp_path / name)
        return open_source(DataConfig(source=f"hf:{tmp_path / name}"), 0)

    image = {"image": datasets.Image()}
    assert any("passed over 2 images" in note for note in opened("none", {"image": IMAGES[6:]}, image).notes)
    turned = {**image, "label": datasets.ClassLabel(names=["ant", "bee"])}
    with pytest.raises(UserError, match=r"split test of .* has, .* the class 'ant' for 0, and the first has 'bee'"):
        opened("turned", {"image": IMAGES[6:], "label": [0, 1]}, turned)
    with pytest.raises(UserError, match=r"the parts of .* do not fit together"):
        opened("text", {"image": IMAGES[6:], "label": ["a", "b"]}, {**image, "label": datasets.Value("string")})
    with pytest.raises(UserError, match=r"the split test of .* has no column 'image'"):
        opened("no-images", {"label": [0, 1]}, {"label": FEATURES["label"]})
