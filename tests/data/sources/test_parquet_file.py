"""Parquet files of images, and of paths of images."""

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from jaxnets.config import DataConfig, TableConfig
from jaxnets.data.sources import open_labelled, open_source
from jaxnets.data.sources.base import CorruptImage
from jaxnets.errors import UserError
from tests.data.sources import tables
from tests.data.sources.images import fill


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _write(folder, name="t.parquet", **columns) -> DataConfig:
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / name)
    return DataConfig(source=f"parquet:{folder / name}")


def _images(count: int = 8) -> list[bytes]:
    return [tables.encoded(number) for number in range(count)]


def test_paths_are_found_as_those_of_a_csv(tmp_path):
    fill(tmp_path / "images", 8)
    categories = pyarrow.array(["a", "b"] * 4).dictionary_encode()
    spec = _write(tmp_path, id=list(range(8)), breed=categories, split=["train"] * 5 + ["test"] * 3)
    source = open_source(spec, 0)
    assert [source.splits["test"].name(i) for i in range(3)] == [f"images/{i}.png" for i in (5, 6, 7)]
    assert source.splits["test"].labels.tolist() == [1, 0, 1]


def test_images_in_the_table_are_read_from_what_was_unpacked_once(tmp_path, cache):
    spec = _write(tmp_path, image=_images(), label=pyarrow.array(list("abababab")))
    source = open_source(spec, 0)
    unpacked = list((cache / "jaxnets" / "parquet").glob("*.images"))
    before = [file.stat().st_mtime_ns for file in unpacked]
    again = open_source(spec, 0)
    assert len(before) == 1
    assert [file.stat().st_mtime_ns for file in unpacked] == before
    for split, part in source.splits.items():
        assert np.array_equal(part.identities, again.splits[split].identities)
        assert [part.name(i) for i in range(len(part))] == [again.splits[split].name(i) for i in range(len(part))]
    assert source.splits["train"].name(0).startswith("t.parquet[")


def test_an_unpacked_file_that_was_cut_short_is_unpacked_again(tmp_path, cache):
    spec = _write(tmp_path, image=_images(), label=list("abababab"))
    whole = open_source(spec, 0).splits["train"].image(0)
    (file,) = (cache / "jaxnets" / "parquet").glob("*.images")
    file.write_bytes(file.read_bytes()[:100])
    assert np.array_equal(open_source(spec, 0).splits["train"].image(0), whole)


def test_a_table_that_was_written_again_is_unpacked_again(tmp_path):
    spec = _write(tmp_path, image=_images(), label=list("abababab"))
    before = open_labelled(spec, ("a", "b")).splits["all"].image(0)
    _write(tmp_path, image=_images()[::-1], label=list("abababab"))
    assert not np.array_equal(open_labelled(spec, ("a", "b")).splits["all"].image(0), before)


def test_an_example_is_the_same_wherever_its_row_is(tmp_path):
    one = open_source(_write(tmp_path, image=_images(), label=list("abababab")), 0)
    other = open_source(_write(tmp_path, "u.parquet", image=_images()[::-1], label=list("babababa")), 0)
    for split in ("train", "test"):
        assert set(one.splits[split].identities.tolist()) == set(other.splits[split].identities.tolist())


def test_lists_of_labels_become_targets(tmp_path):
    labels = [["a"], [], ["b", "a"], ["b"]] * 2
    part = open_labelled(_write(tmp_path, image=_images(), labels=labels), ("b", "a")).splits["all"]
    assert part.targets.tolist() == [[int("b" in row), int("a" in row)] for row in labels]
    labels = [["a", None], ["b", "a"]] * 4
    fixed = pyarrow.array(labels, pyarrow.list_(pyarrow.string(), 2))
    part = open_labelled(_write(tmp_path, image=_images(), labels=fixed), ("b", "a")).splits["all"]
    assert part.targets.tolist() == [[int("b" in row), int("a" in row)] for row in labels]


@pytest.mark.parametrize("kind", [pyarrow.list_(pyarrow.int64()), pyarrow.list_(pyarrow.float32(), 3), None])
def test_vectors_of_0_and_1_are_not_taken_for_the_labels_0_and_1(tmp_path, kind):
    labels = (
        pyarrow.array([[1, 0, 0], [0, 1, 1]] * 4, kind) if kind else [[True, False, False], [False, True, True]] * 4
    )
    with pytest.raises(UserError, match=r"the labels of t.parquet are 3 numbers 0 or 1 for each image"):
        open_source(_write(tmp_path, image=_images(), labels=labels), 0)


def test_files_whose_numbers_mean_different_classes_are_refused(tmp_path):
    for split, names in (("train", ["bee", "ant"]), ("test", ["ant", "bee"])):
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = pyarrow.table({"image": _images(4), "label": [0, 1] * 2})
        about = {"huggingface": json.dumps({"info": {"features": features}})}
        pyarrow.parquet.write_table(table.replace_schema_metadata(about), tmp_path / f"{split}.parquet")
    with pytest.raises(UserError, match=r"train.parquet has, .* the class 'bee' for 0, and the first has 'ant'"):
        open_source(DataConfig(source=f"parquet:{tmp_path}"), 0)


def test_groups_and_numbers_of_files_are_read(tmp_path):
    for name, count in (("train-0", 6), ("val-0", 2)):
        _write(tmp_path, f"{name}.parquet", image=_images(count), label=[0, 1] * (count // 2), group=[7] * count)
    source = open_source(DataConfig(source=f"parquet:{tmp_path}/*.parquet"), 0)
    assert {name: len(part) for name, part in source.splits.items()} == {"train": 6, "test": 2}
    assert source.class_names == ("0", "1")
    assert len({*source.splits["train"].groups.tolist(), *source.splits["test"].groups.tolist()}) == 1


def test_rows_without_an_image_are_counted(tmp_path):
    spec = _write(tmp_path, image=[*_images(7), None], label=list("abababab"))
    with pytest.raises(UserError, match=r"the image of 1 of 8 rows of t.parquet is empty \(row 7\)"):
        open_source(spec, 0)
    source = open_source(DataConfig(source=spec.source, table=TableConfig(skip_missing=True)), 0)
    assert sum(map(len, source.splits.values())) == 7


def test_an_image_that_is_none_is_named_when_it_is_read(tmp_path):
    part = open_labelled(_write(tmp_path, image=[b"nothing", *_images(1)], label=["a", "b"]), ("a", "b")).splits["all"]
    with pytest.raises(CorruptImage, match=r"t.parquet\[0\] is not an image"):
        part.image(0)


def test_what_is_no_such_table_is_refused(tmp_path):
    (tmp_path / "text.parquet").write_text("image,label\n")
    with pytest.raises(UserError, match=r"text.parquet cannot be read as a Parquet file"):
        open_source(DataConfig(source=f"parquet:{tmp_path / 'text.parquet'}"), 0)
    with pytest.raises(UserError, match="leads to no file"):
        open_source(DataConfig(source=f"parquet:{tmp_path / 'none.parquet'}"), 0)
    with pytest.raises(UserError, match="has no rows"):
        open_source(_write(tmp_path, image=pyarrow.array([], "binary"), label=pyarrow.array([], "string")), 0)
    with pytest.raises(UserError, match="has no column that is called like a label"):
        open_source(_write(tmp_path, image=_images(2), width=[1, 2], height=[1, 2]), 0)
    _write(tmp_path, "u.parquet", image=_images(2), klass=["a", "b"])
    with pytest.raises(UserError, match=r"has other columns \(image, klass\)"):
        open_source(DataConfig(source=f"parquet:{tmp_path}/[tu].parquet"), 0)


def test_a_column_that_says_no_split_leaves_the_word_to_the_files(tmp_path):
    _write(tmp_path, "train-0.parquet", image=_images(6), label=list("ababab"), subset=["x"] * 6)
    _write(tmp_path, "test-0.parquet", image=_images(2), label=list("ab"), subset=["y"] * 2)
    source = open_source(DataConfig(source=f"parquet:{tmp_path}"), 0)
    assert {name: len(part) for name, part in source.splits.items()} == {"train": 6, "test": 2}
    assert any("the column 'subset'" in note for note in source.notes)


def test_files_and_a_column_that_say_different_splits_are_refused_unless_one_is_named(tmp_path):
    _write(tmp_path, "train-0.parquet", image=_images(6), label=list("ababab"), split=["val"] * 2 + ["train"] * 4)
    _write(tmp_path, "test-0.parquet", image=_images(2), label=list("ab"), split=["train", "test"])

    def sizes(split):
        source = open_source(DataConfig(source=f"parquet:{tmp_path}", table=TableConfig(split=split)), 0)
        return {name: len(part) for name, part in source.splits.items()}

    with pytest.raises(UserError, match=r"row 0 is in the test split by its file, and in train by the column 'split'"):
        sizes(None)
    assert sizes("") == {"train": 6, "test": 2}
    assert sizes("split") == {"train": 5, "validation": 2, "test": 1}


def test_folders_of_paths_say_the_splits_as_in_a_csv(tmp_path):
    for split in ("train", "test"):
        fill(tmp_path / split, 4)
    paths = [f"{split}/{i}.png" for split in ("train", "test") for i in range(4)]
    source = open_source(_write(tmp_path, image=paths, label=list("abababab")), 0)
    assert [source.splits["test"].name(i) for i in range(4)] == paths[4:]
