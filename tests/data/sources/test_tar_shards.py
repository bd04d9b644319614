"""Tar archives of images: WebDataset's shards, and folders of classes."""

import gzip
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from jaxnets.config import DataConfig, TableConfig
from jaxnets.data.sources import open_labelled, open_source, tar_index
from jaxnets.data.sources.base import CorruptImage
from jaxnets.errors import UserError
from tests.data.sources import tables
from tests.data.sources.tables import encoded, pack


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _samples(labels, suffix: str = "cls") -> dict[str, bytes]:
    members = {}
    for number, label in enumerate(labels):
        members |= {f"{number:04}.png": encoded(number), f"{number:04}.{suffix}": label.encode()}
    return members


def _open(path: Path | str, known=None, **keys):
    spec = DataConfig(source=f"tar:{path}", table=TableConfig(**keys))
    return open_source(spec, 0) if known is None else open_labelled(spec, known)


def _all(source) -> dict[str, str]:
    return {
        part.name(i): source.class_names[part.labels[i]] for part in source.splits.values() for i in range(len(part))
    }


@pytest.mark.parametrize(
    ("suffix", "labels"),
    [
        ("cls", ["3", "12"] * 4),
        ("cls", ["ant", "bee"] * 4),
        ("txt", ["ant\n", " bee"] * 4),
        ("json", ['{"label": 3, "url": "x"}', '{"label": 12}'] * 4),
        ("json", ['"ant"', '"bee"'] * 4),
    ],
)
def test_labels_lie_beside_the_images(tmp_path, suffix, labels):
    source = _open(pack(tmp_path / "x.tar", _samples(labels, suffix)))
    assert source.class_names in (("3", "12"), ("ant", "bee"))
    first, second = source.class_names
    assert _all(source) == {f"x.tar/{i:04}.png": (first, second)[i % 2] for i in range(8)}


def test_a_file_names_the_classes_of_numbers(tmp_path):
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\n")
    source = _open(pack(tmp_path / "x.tar", _samples(["2", "0"] * 4)))
    assert source.class_names == ("ant", "bee", "cat")
    assert _all(source)["x.tar/0000.png"] == "cat"
    assert "x.tar has no training images of 'bee'" in source.notes
    (tmp_path / "classes.txt").write_text("ant\nant\n")
    with pytest.raises(UserError, match="all different, found 'ant' in line 2"):
        _open(tmp_path / "x.tar")
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    with pytest.raises(UserError, match=r"has the label '2', which is neither a name nor a number of its 2 classes"):
        _open(tmp_path / "x.tar")
    with pytest.raises(UserError, match=r"has the labels '1', a number, and 'ant', a name: write one kind"):
        _open(pack(tmp_path / "x.tar", _samples(["1", "ant"] * 4)))


def test_json_says_labels_groups_and_sets_of_labels(tmp_path):
    labels = [["a"], ["a", "b"], [], ["b"]] * 2
    said = [json.dumps({"tags": row, "patient": f"p{i // 4}", "w": 8}) for i, row in enumerate(labels)]
    part = _open(pack(tmp_path / "x.tar", _samples(said, "json")), known=("a", "b")).splits["all"]
    assert part.targets.tolist() == [[int("a" in row), int("b" in row)] for row in labels]
    assert len(set(part.groups.tolist())) == 2
    said = [json.dumps({"a": "a" in row, "b": int("b" in row)}) for row in labels]
    path = pack(tmp_path / "y.tar", _samples(said, "json"))
    assert _open(path, ("a", "b"), labels=("a", "b")).splits["all"].targets.tolist() == part.targets.tolist()


def test_json_says_splits_and_groups_also_where_the_first_has_none_and_a_cls_says_the_label(tmp_path):
    said = [
        {"w": 8, "split": "test" if i > 5 else "train"} | ({"patient": f"p{i // 2}"} if i else {}) for i in range(8)
    ]
    with_label = [row | {"label": "ab"[i % 2]} for i, row in enumerate(said)]
    cls = {f"{i:04}.cls": "ab"[i % 2].encode() for i in range(8)}
    for name, rows, more in (("x", with_label, {}), ("y", said, cls)):
        members = _samples(map(json.dumps, rows), "json") | more
        source = _open(pack(tmp_path / f"{name}.tar", members))
        assert {split: part.labels.tolist() for split, part in source.splits.items()} == {
            "train": [0, 1] * 3,
            "test": [0, 1],
        }
        assert [len(set(part.groups.tolist())) for part in source.splits.values()] == [4, 1]


def test_the_key_that_is_asked_for_counts_and_not_the_cls_beside_it(tmp_path):
    members = _samples(['{"coarse": "x"}', '{"coarse": "y"}', "{}"] * 2, "json") | _samples(["1", "2", "3"] * 2)
    path = pack(tmp_path / "x.tar", members)
    assert _open(path).class_names == ("1", "2", "3")
    assert _open(path, label="coarse", skip_missing=True).class_names == ("x", "y")


@pytest.mark.parametrize(
    ("suffix", "label", "expected"),
    [
        ("json", '{"label": ', "the JSON beside x.tar/0007.png cannot be read"),
        ("json", "[" * 60_000, "the JSON beside x.tar/0007.png cannot be read"),
        ("json", '{"w": 8, "h": 8}', "the JSON of x.tar has no column that is called like a label"),
        ("cls", "", "1 of 8 rows of x.tar have no label"),
    ],
)
def test_a_label_that_says_none_is_refused_by_name(tmp_path, suffix, label, expected):
    path = pack(tmp_path / "x.tar", _samples(["1", "2"] * 3 + ["1", label], suffix))
    with pytest.raises(UserError) as refused:
        _open(path)
    assert expected in str(refused.value)


def test_names_of_shards_say_the_splits(tmp_path):
    for name, count in (("train-0", 4), ("train-1", 4), ("val-0", 2)):
        pack(tmp_path / f"{name}.tar", _samples(["a", "b"] * (count // 2)))
    for location in (tmp_path, f"{tmp_path}/*.tar"):
        source = _open(location)
        assert {name: len(part) for name, part in source.splits.items()} == {"train": 8, "test": 2}
    source = _open(f"{tmp_path}/train-{{0..1}}.tar")
    assert sum(map(len, source.splits.values())) == 8
    assert len(set(_all(source))) == 8  # a key may come in every shard
    with pytest.raises(UserError, match=r"means 3 files, and 1 of them"):
        _open(f"{tmp_path}/train-{{0..2}}.tar")
    pack(tmp_path / "more.tar", _samples(["a", "b"]))
    with pytest.raises(UserError, match=r"others that say none \('more.tar'\)"):
        _open(tmp_path)


def test_folders_are_classes_where_no_image_has_a_label(tmp_path):
    names = [f"set/{split}/{label}/x.{n}.png" for split in ("train", "test") for label in "ab" for n in range(3)]
    members = {name: encoded(number) for number, name in enumerate(names)}
    source = _open(pack(tmp_path / "x.tar", {**members, "set/README.txt": b"?", "set/._x.png": b"?"}))
    assert {name: len(part) for name, part in source.splits.items()} == {"train": 6, "test": 6}
    assert _all(source) == {name: name.split("/")[2] for name in names}
    part = source.splits["test"]
    index = next(i for i in range(6) if part.name(i) == names[-1])
    stored = members[names[-1]]
    assert np.array_equal(part.image(index), _decoded(stored))
    with pytest.raises(UserError, match="has no folders called as classes of the model"):
        _open(pack(tmp_path / "flat.tar", {"1.png": encoded(1)}), known=("a", "b"))


def _decoded(content: bytes) -> np.ndarray:
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(content)))


def test_a_class_may_go_on_in_the_next_archive(tmp_path):
    pack(tmp_path / "x-0.tar", {f"{label}/{n}.png": encoded(n) for label in "ab" for n in range(3)})
    pack(tmp_path / "x-1.tar", {f"{label}/{n}.png": encoded(n) for label in "bc" for n in range(3, 6)})
    assert _open(f"{tmp_path}/x-*.tar").class_names == ("a", "b", "c")
    pack(tmp_path / "x-2.tar", {"a/0.png": encoded(9)})
    with pytest.raises(UserError, match=r"x-0.tar and x-2.tar both have 'a/0.png'"):
        _open(f"{tmp_path}/x-*.tar")


def test_headers_are_read_once_until_the_archive_changes(tmp_path, monkeypatch):
    path = pack(tmp_path / "x.tar", _samples(["a", "b"] * 4))
    before = _all(_open(path))
    with monkeypatch.context() as patch:
        patch.setattr(tar_index, "_read", None)
        assert _all(_open(path)) == before
    pack(path, _samples(["b", "a"] * 5))
    assert len(_all(_open(path))) == 10


def test_the_fingerprint_tells_other_images_of_the_same_names_and_no_other_place(tmp_path):
    def sums(path):
        part = _open(path, known=("a", "b")).splits["all"]
        return part.identities.tolist(), part.content_crc32(np.arange(len(part)))

    members = _samples(["a", "b"] * 4)
    there = sums(pack(tmp_path / "x.tar", members))
    assert sums(pack(tmp_path / "elsewhere" / "x.tar", members)) == there
    other = sums(pack(tmp_path / "x.tar", {**members, "0003.png": encoded(99)}))
    assert other[0] == there[0]
    assert other[1] != there[1]


def test_what_cannot_be_read_in_any_order_is_refused(tmp_path):
    path = pack(tmp_path / "x.tar", _samples(["a", "b"] * 4))
    whole = path.read_bytes()
    cases = {
        "is compressed": gzip.compress(whole),
        "is cut short": whole[: len(whole) // 2 + 100],
        "is damaged: at byte 1,": whole[:1024] + b"x" * 512 + whole[1536:],
        "stops without the end mark": whole[: whole.rstrip(b"\0").__len__() // 512 * 512 + 512],
        "goes on behind its end mark": whole + whole,
        "is no tar archive": b"image,label" * 100,
    }
    for expected, content in cases.items():
        path.write_bytes(content)
        with pytest.raises(UserError) as refused:
            _open(path)
        assert expected in str(refused.value), refused.value
    with pytest.raises(UserError, match="leads to no file"):
        _open(tmp_path / "none-*.tar")
    with pytest.raises(UserError, match="has no image"):
        _open(pack(tmp_path / "y.tar", {"a.txt": b"a"}))


def test_an_archive_that_is_cut_short_later_is_named_when_it_is_read(tmp_path):
    path = pack(tmp_path / "x.tar", _samples(["a", "b"] * 4))
    part = _open(path, known=("a", "b")).splits["all"]
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(CorruptImage, match=r"x.tar/0007.png cannot be read: .*ends within it"):
        part.image(7)


def test_images_without_a_label_are_refused_or_left_out_as_asked(tmp_path):
    members = _samples(["a", "b"] * 4)
    del members["0003.cls"]
    path = pack(tmp_path / "x.tar", members)
    with pytest.raises(UserError, match=r"1 of 8 rows of x.tar have no label \(x.tar/0003.png\)"):
        _open(path)
    assert len(_all(_open(path, skip_missing=True))) == 7


def test_of_several_images_of_a_sample_the_plain_one_is_meant(tmp_path):
    members = _samples(["a", "b"] * 4)
    path = pack(tmp_path / "x.tar", {"0003.mask.png": encoded(99), **members})
    assert set(_all(_open(path))) == {f"x.tar/{i:04}.png" for i in range(8)}
    with pytest.raises(UserError, match="2 images of one sample"):
        _open(pack(tmp_path / "y.tar", {"0003.jpg": encoded(99), **members}))


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_foreign_names_come_out_in_every_format(tmp_path, kind):
    for folder in ("ä" * 30, "b" * 90):
        (tmp_path / folder).mkdir()
        for number in range(3):
            (tmp_path / folder / f"{number}.png").write_bytes(encoded(number))
    with tarfile.open(tmp_path / "x.tar", "w", format=kind) as archive:
        for folder in ("ä" * 30, "b" * 90):
            archive.add(tmp_path / folder, folder)
    assert _open(tmp_path / "x.tar").class_names == ("b" * 90, "ä" * 30)


def test_the_same_images_as_a_csv_have_the_same_pixels(tmp_path):
    tar, csv = (
        open_source(DataConfig(source=write(tmp_path / kind)), 0)
        for kind, write in (("tar", tables.write_tar), ("csv", tables.write_csv))
    )
    one, other = tar.splits["train"], csv.splits["train"]
    assert all(np.array_equal(one.image(i), other.image(i)) for i in range(len(one)))
    assert one.labels.tolist() == other.labels.tolist()
