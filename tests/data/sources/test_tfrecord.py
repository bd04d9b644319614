"""TFRecords, written here by others' code: messages by TFDS's protobuf classes, files by tensorboardX's writer."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboardX.record_writer import RecordWriter
from tensorflow_datasets.proto import tf_example_pb2

from jaxnets.config import DataConfig, TableConfig
from jaxnets.data.sources import CorruptImage, open_labelled, open_source, with_absolute_paths
from jaxnets.data.sources.tf_example import read_example
from jaxnets.data.sources.tfrecord_file import masked_crc32c
from jaxnets.errors import UserError
from tests import bucket

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 6, 8, 3), np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def example(**features) -> bytes:
    """Returns a message; a feature's name has __ where the real one has a slash."""
    made = tf_example_pb2.Example()
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        feature = made.features.feature[name.replace("__", "/")]
        if isinstance(values[0], float):
            feature.float_list.value.extend(values)
        elif isinstance(values[0], int):
            feature.int64_list.value.extend(values)
        else:
            feature.bytes_list.value.extend(x.encode() if isinstance(x, str) else x for x in values)
    return made.SerializeToString()


def write(path: Path, messages: list[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = RecordWriter(str(path))
    for message in messages:
        writer.write(message)
    writer.close()
    return path


def imagenet(folder: Path, first_label: int = 1) -> Path:
    """Writes two shards of train and one of validation, as TensorFlow's script for ImageNet does."""
    for shard, name in enumerate(["train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"]):
        messages = [
            example(
                image__encoded=png(PIXELS[i]),
                image__class__label=first_label + i % 3,
                image__class__text=("cat", "dog", "eel")[i % 3],
                image__format="PNG",
                image__object__bbox__xmin=[0.5, 0.25],
            )
            for i in range(10 * shard, 10 * shard + 10)
        ]
        write(folder / name, messages)
    return folder


def opened(location: Path | str, known=None, white_level=65535, **table):
    spec = DataConfig(source=f"tfrecord:{location}", white_level=white_level, table=TableConfig(**table))
    return open_source(spec, 0) if known is None else open_labelled(spec, known)


def test_imagenets_records_are_opened_with_their_splits_classes_and_pixels(tmp_path):
    source = opened(imagenet(tmp_path / "in"), label_offset=1)
    assert source.class_names == ("cat", "dog", "eel")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 20, "test": 10}
    assert (source.image_size, source.channels) == ((6, 8), 3)
    train, test = source.splits["train"], source.splits["test"]
    np.testing.assert_array_equal(train.labels, np.arange(20) % 3)
    np.testing.assert_array_equal(test.labels, np.arange(20, 30) % 3)
    for i in (19, 0, 10):
        np.testing.assert_array_equal(train.image(i), PIXELS[i])
    assert train.name(12) == "train-00001-of-00002[2]"
    assert test.name(0) == "validation-00000-of-00001[0]"


def test_labels_that_count_from_1_are_said_where_names_would_be_one_too_many(tmp_path):
    source = opened(imagenet(tmp_path / "in"))
    assert source.class_names == ("0", "cat", "dog", "eel")
    assert any("no record of the class 0 (0): if its labels count from 1, set config.data" in n for n in source.notes)


def test_identities_are_the_records_own_wherever_they_lie(tmp_path):
    here = opened(imagenet(tmp_path / "in")).splits["train"].identities
    (tmp_path / "in" / "train-00000-of-00002").rename(tmp_path / "in" / "train-00007-of-00002")
    (tmp_path / "in").rename(tmp_path / "moved")
    there = opened(tmp_path / "moved").splits["train"].identities
    assert len(set(here.tolist())) == 20
    np.testing.assert_array_equal(there, np.r_[here[10:], here[:10]])


def test_an_index_is_kept_and_made_anew_when_a_file_changes(tmp_path, monkeypatch):
    first = opened(imagenet(tmp_path / "in"), label_offset=1)
    monkeypatch.setattr("jaxnets.data.sources.tfrecord_index._read", lambda *_: pytest.fail("read again"))
    again = opened(tmp_path / "in", label_offset=1)
    assert again.class_names == first.class_names
    np.testing.assert_array_equal(again.splits["train"].labels, first.splits["train"].labels)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    changed = [example(image__encoded=png(PIXELS[i]), image__class__label=1 + i % 3) for i in (2, 1, 0)]
    write(tmp_path / "in" / "train-00000-of-00002", changed)
    assert opened(tmp_path / "in", label_offset=1).splits["train"].labels[:3].tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("features", "table"),
    [
        ({"image": png(PIXELS[0]), "label": 1}, {}),
        ({"image": png(PIXELS[0]), "class": 1, "id": "x"}, {}),
        ({"image": png(PIXELS[0]), "target": 1, "image_name": "a"}, {}),
        ({"picture": png(PIXELS[0]), "kind": 1}, {"image": "picture", "label": "kind"}),
    ],
)
def test_features_are_found_by_their_usual_names_or_named(tmp_path, features, table):
    label = next(name for name in ("label", "class", "target", "kind") if name in features)
    write(tmp_path / "a.tfrec", [example(**{**features, label: i % 2}) for i in range(8)])
    source = opened(tmp_path / "a.tfrec", **table)
    assert source.class_names == ("0", "1")
    assert sum(len(split) for split in source.splits.values()) == 8


def test_labels_may_be_texts(tmp_path):
    write(tmp_path / "a", [example(image=png(PIXELS[i]), label=["dog", "cat"][i % 2]) for i in range(8)])
    assert opened(tmp_path / "a").class_names == ("cat", "dog")


def test_records_with_several_labels_have_targets(tmp_path):
    labels = [[0, 2], [1], [], [2]] * 3
    write(
        tmp_path / "a",
        [example(image=png(PIXELS[i]), label=x) if x else example(image=png(PIXELS[i])) for i, x in enumerate(labels)],
    )
    source = opened(tmp_path / "a", known=["0", "1", "2"])
    np.testing.assert_array_equal(source.splits["all"].targets, [[int(c in x) for c in range(3)] for x in labels])


def test_a_file_names_the_classes_of_numbers(tmp_path):
    write(tmp_path / "a", [example(image=png(PIXELS[i]), label=1 + i % 2) for i in range(8)])
    (tmp_path / "names.txt").write_text("hen\ncock\n")
    given = {"classes": str(tmp_path / "names.txt")}
    assert opened(tmp_path / "a", label_offset=1, **given).class_names == ("hen", "cock")
    with pytest.raises(
        UserError, match=r"labels up to 2, but there are 2 names.*--config\.data\.table\.label_offset=1"
    ):
        opened(tmp_path / "a", **given)
    with pytest.raises(UserError, match=r"config\.data\.table\.classes .*gone\.txt does not exist"):
        opened(tmp_path / "a", classes=str(tmp_path / "gone.txt"))


def test_what_tfds_prepared_as_tfrecords_is_opened_with_its_names_of_classes(tmp_path):
    for split, first in (("train", 0), ("test", 10)):
        messages = [example(image=png(PIXELS[i]), label=i % 2) for i in range(first, first + 10)]
        write(tmp_path / "in" / f"pets-{split}.tfrecord-00000-of-00001", messages)
    for name, content in (("features.json", "{}"), ("label.labels.txt", "cat\ndog\n")):
        (tmp_path / "in" / name).write_text(content)
    source = opened(tmp_path / "in")
    assert source.class_names == ("cat", "dog")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 10, "test": 10}


def test_a_model_is_evaluated_on_records_by_the_names_of_its_classes(tmp_path):
    source = opened(imagenet(tmp_path / "in") / "validation-*", known=["eel", "cat", "dog"], label_offset=1)
    np.testing.assert_array_equal(source.splits["validation"].labels, np.array([1, 2, 0])[np.arange(20, 30) % 3])


def test_sixteen_bits_have_their_white_level(tmp_path):
    deep = np.full((4, 4), 4095, np.uint16)
    write(tmp_path / "a", [example(image=png(deep), label=i % 2) for i in range(8)])
    assert opened(tmp_path / "a", white_level=4095).splits["train"].image(0).min() == 255


def test_a_record_whose_bytes_changed_is_named_when_it_is_read(tmp_path):
    path = imagenet(tmp_path / "in") / "train-00001-of-00002"
    content = bytearray(path.read_bytes())
    content[content.index(png(PIXELS[12])) + 60] ^= 1
    path.write_bytes(content)
    train = opened(tmp_path / "in").splits["train"]
    assert train.image(11).shape == (6, 8, 3)
    with pytest.raises(
        CorruptImage, match=r"train-00001-of-00002\[2\] is damaged: its bytes do not fit their checksum"
    ):
        train.image(12)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: data[:-7], r"a cannot be read as TFRecords: it is cut short: record 3 has \d+ bytes, and only"),
        (lambda data: data + data[:5], "it is cut short in record 4"),
        (lambda data: b"hello, this is no such file" + data, "it is not a TFRecord file"),
        (lambda data: b"\x1f\x8b" + data, r"it is compressed \(gzip\)"),
        (lambda data: b"\xff\xd8\xff\xe0" + data, "it is not a TFRecord file"),
        (
            lambda data: data[: len(data) // 2] + b"\0" * 30 + data[len(data) // 2 :],
            "record 2 does not fit its checksum",
        ),
        (lambda data: b"", "a has no records"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_by_name(tmp_path, spoil, said):
    write(tmp_path / "a", [example(image=png(PIXELS[0]), label=i % 2) for i in range(4)])
    (tmp_path / "a").write_bytes(spoil((tmp_path / "a").read_bytes()))
    with pytest.raises(UserError, match=said):
        opened(tmp_path / "a")


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([b"\x0a\xff hello"], r"record 0 of .*a is no tf\.train\.Example"),
        (
            [example(height=3, colour="red")],
            r"the image cannot be told; .* colour \(bytes\), height \(integers\): name it",
        ),
        ([example(image=png(PIXELS[0]), size=3)], r"the label cannot be told; .*size \(integers\)"),
        ([example(image=3, label=1)], r"the feature 'image' of a holds integers, and an encoded image is expected"),
        ([example(image=PIXELS[0].tobytes(), label=i) for i in (0, 1)], r"holds no encoded image \(JPEG, .*in a\[0\]"),
        (
            [example(image=png(PIXELS[0]), label=0), example(label=1)],
            r"the image of 1 of 2 rows of a is missing: .*'image' \(a\[1\]\): .*skip_missing=true",
        ),
        (
            [example(image=png(PIXELS[0]), label=0), example(image=png(PIXELS[1]))],
            r"1 of 2 rows of a have no label \(a\[1\]\)",
        ),
        ([example(image=png(PIXELS[0]), label=0), example(image=png(PIXELS[1]), label="x")], "numbers in some records"),
    ],
)
def test_records_that_cannot_be_trained_on_are_refused_with_what_they_hold(tmp_path, messages, said):
    write(tmp_path / "a", messages)
    with pytest.raises(UserError, match=said):
        opened(tmp_path / "a")


def test_a_folder_without_such_files_and_a_pattern_without_matches_are_refused(tmp_path):
    (tmp_path / "features.json").write_text("{}")
    with pytest.raises(UserError, match=r"no files that are called \*\.tfrecord"):
        opened(tmp_path)
    with pytest.raises(UserError, match="leads to no file"):
        opened(tmp_path / "train-*")


def test_messages_are_read_as_protobuf_reads_them():
    random = np.random.default_rng(1)
    for _ in range(50):
        values = {
            "a": [random.bytes(int(n)) for n in random.integers(0, 300, 3)],
            "é": random.integers(-(2**63), 2**63 - 1, 5).tolist(),
            "f": random.normal(size=4).tolist(),
        }
        found = read_example(example(**values))
        assert {name: feature.kind for name, feature in found.items()} == {"a": "bytes", "é": "integers", "f": "floats"}
        assert [bytes(each) for each in found["a"].byte_strings()] == values["a"]
        assert found["é"].integers() == values["é"]


def test_damaged_messages_are_read_or_refused_and_nothing_else():
    random = np.random.default_rng(2)
    message = example(image=png(PIXELS[0]), label=[1, 2, 300], text="cat")
    seen = {"read": 0, "refused": 0}
    for _ in range(300):
        damaged = bytearray(message)
        for position in random.integers(0, 40, 3):
            damaged[position if random.random() < 0.5 else -position - 1] = random.integers(0, 256)
        try:
            for feature in read_example(bytes(damaged)).values():
                found = feature.integers() if feature.kind == "integers" else feature.byte_strings()
                assert isinstance(found, list)
            seen["read"] += 1
        except ValueError:
            seen["refused"] += 1
    assert min(seen.values()) > 30  # both are met, and nothing else is raised


def test_the_checksum_is_the_masked_crc32c_of_the_format():
    assert masked_crc32c(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_records_in_a_bucket_are_those_on_a_disk(tmp_path, monkeypatch):
    local = opened(imagenet(tmp_path / "in"), label_offset=1)
    with bucket.serving() as (objects, variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        for path in (tmp_path / "in").iterdir():
            objects.put(f"in/{path.name}", path.read_bytes(), None)
        remote = opened("gs://bucket/in/*-of-*", label_offset=1)
        for name, split in local.splits.items():
            np.testing.assert_array_equal(remote.splits[name].labels, split.labels)
            np.testing.assert_array_equal(remote.splits[name].identities, split.identities)
            np.testing.assert_array_equal(remote.splits[name].image(3), split.image(3))


def test_paths_of_records_and_class_names_are_kept_whole(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    spec = with_absolute_paths(DataConfig(source="tfrecord:in/train-*", table=TableConfig(classes="names.txt")))
    assert spec.source == f"tfrecord:{tmp_path}/in/train-*"
    assert spec.table.classes == f"{tmp_path}/names.txt"
    assert with_absolute_paths(DataConfig(source="tfrecord:gs://b/in-*")).source == "tfrecord:gs://b/in-*"
