"""What lies where in TFRecords: found out once for each file, and kept in the user's cache until the file changes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt64

from jaxnets.config import TableConfig
from jaxnets.data.sources import bucket, kept
from jaxnets.data.sources.base import CorruptImage
from jaxnets.data.sources.names import printable
from jaxnets.data.sources.stored import Stored
from jaxnets.data.sources.tf_example import Feature, read_example
from jaxnets.data.sources.tfrecord_file import Damaged, Record, content_of, masked_crc32c, records
from jaxnets.errors import UserError, nearest

_VERSION = 1  # of what is kept in the cache
_ARRAYS = ("offset", "length", "checksum", "size", "counts", "numbers", "labels", "called", "texts")
# What features are called, the first that is there: TensorFlow's own data sets, TFDS's, those of contests.
_IMAGES = (
    *("image/encoded", "image", "image_raw", "image_bytes", "img", "encoded", "jpeg", "png", "image/data"),
    *("image/image_raw", "image/raw", "image/jpeg", "data", "x"),
)
_LABELS = (
    *("image/class/label", "label", "class", "target", "labels", "classes", "targets", "image/label", "class_id"),
    *("label_id", "image/class", "category", "y", "image/class/text", "image/object/class/label"),
)
_TEXTS = ("image/class/text", "class_name", "label_text")  # that name the class of a number
_SHOWN = 12  # features that a message lists


class Keys(NamedTuple):
    """Names of the features that a classifier needs."""

    image: str
    label: str
    text: str  # "" where there is none


@dataclass(frozen=True, kw_only=True)
class Index:
    """The records of one file."""

    offset: Int64[np.ndarray, " n"]  # of each record's data, in bytes
    length: Int64[np.ndarray, " n"]
    checksum: Int64[np.ndarray, " n"]  # of it
    size: Int64[np.ndarray, " n"]  # of its image in bytes; −1 where it has none
    counts: Int64[np.ndarray, " n"]  # of its labels
    numbers: Int64[np.ndarray, " m"]  # labels, those of the first record first
    labels: list[str] | None  # in the place of numbers, where they are texts
    texts: Mapping[int, str]  # what a number is called, as far as a record says so


def find_keys(shards: Sequence[str], title: str, spec: TableConfig) -> Keys:
    """Returns which features hold image and label, by the first record.

    Raises:
        UserError: if there is no such record, or they cannot be told.
    """
    for path in shards:
        with content_of(path) as content:
            first = next(_each(content, path), None)
            if first is None:
                continue
            features = {name: feature.kind for name, feature in first[1].items()}
        image = _choose(spec.image, _IMAGES, features, "image", title)
        if features[image] != "bytes":
            raise UserError(
                f"the feature {image!r} of {title} holds {features[image]}, and an encoded image is expected: "
                f"config.data.table.image names another"
            )
        label = _choose(spec.label, _LABELS, features, "label", title)
        texts = (name for name in _TEXTS if name != label and features.get(name) == "bytes")
        return Keys(image, label, next(texts, ""))
    raise UserError(f"{title} has no records")


def _choose(asked: str | None, usual: Sequence[str], features: Mapping[str, str], what: str, title: str) -> str:
    listed = ", ".join(f"{name} ({kind})" for name, kind in sorted(features.items())[:_SHOWN]) or "none"
    if asked is not None:
        if asked not in features:
            raise UserError(
                f"config.data.table.{what} {asked!r} is no feature of {title}{nearest(asked, features)}; its first "
                f"record has {listed}"
            )
        return asked
    by_case = {name.lower(): name for name in features}
    found = next((by_case[name] for name in usual if name in by_case), None)
    if found is None:
        raise UserError(
            f"which feature of {title} is the {what} cannot be told; its first record has {listed}: name it with "
            f"--config.data.table.{what}"
        )
    return found


def read_index(path: str, keys: Keys) -> Index:
    """Returns the records of a file, from the cache where it has not changed.

    Raises:
        UserError: if it is no TFRecord file, compressed, damaged or cut short, or a record is no Example.
    """
    try:
        version = (path, *bucket.version_of(path)) if path.startswith(bucket.BUCKET) else kept.version_of_file(path)
        at = kept.kept_at("tfrecord", _VERSION, tuple(keys), *version)
        arrays = kept.load(at, _ARRAYS)
        if arrays is None:
            arrays = _read(path, keys)
            kept.save(at, arrays)
    except OSError as error:
        raise UserError(f"{printable(path)} cannot be read: {error.strerror or error}") from error
    total = int(arrays["counts"].sum())
    called = arrays["called"]
    return Index(
        **{name: arrays[name] for name in ("offset", "length", "checksum", "size", "counts", "numbers")},
        labels=kept.unpack(arrays["labels"], total) if len(arrays["numbers"]) < total else None,
        texts=dict(zip(called.tolist(), kept.unpack(arrays["texts"], len(called)), strict=True)),
    )


def _read(path: str, keys: Keys) -> dict[str, np.ndarray]:
    columns: list[tuple[int, int, int, int, int]] = []
    numbers: list[int] = []
    labels: list[str] = []
    called: dict[int, str] = {}
    with content_of(path) as content:
        for record, features in _each(content, path):
            try:
                size, own = _size(features.get(keys.image)), _labels(features.get(keys.label))
                if len(own) == 1 and isinstance(own[0], int) and own[0] not in called and keys.text in features:
                    called[own[0]] = next(map(_text, features[keys.text].byte_strings()), "")
            except ValueError as error:
                raise _no_example(path, len(columns), record, error) from error
            numbers += [each for each in own if isinstance(each, int)]
            labels += [each for each in own if isinstance(each, str)]
            columns.append((record.offset, record.length, record.checksum, size, len(own)))
    if numbers and labels:
        raise UserError(f"the labels of {printable(path)} are numbers in some records and texts in others")
    table = np.array(columns, np.int64).reshape(-1, 5)
    return {
        **{name: table[:, i] for i, name in enumerate(("offset", "length", "checksum", "size", "counts"))},
        "numbers": np.array(numbers, np.int64),
        "labels": kept.pack(labels),
        "called": np.array(list(called), np.int64),
        "texts": kept.pack(list(called.values())),
    }


def _each(content: memoryview, path: str) -> Iterator[tuple[Record, Mapping[str, Feature]]]:
    found = enumerate(records(content))
    while True:
        try:
            number, record = next(found, (-1, None))
        except Damaged as error:
            raise UserError(f"{printable(path)} cannot be read as TFRecords: {error}") from error
        if record is None:
            return
        try:
            features = read_example(record.data)
        except ValueError as error:
            raise _no_example(path, number, record, error) from error
        yield record, features


def _no_example(path: str, number: int, record: Record, error: ValueError) -> UserError:
    if masked_crc32c(record.data) != record.checksum:
        return UserError(f"record {number} of {printable(path)} is damaged, as its checksum shows: copy the file again")
    return UserError(f"record {number} of {printable(path)} is no tf.train.Example ({error}), which is expected")


def _size(image: Feature | None) -> int:
    """Returns the bytes of an encoded image, −1 where there is none."""
    stored = image.byte_strings() if image is not None and image.kind == "bytes" else []
    return len(stored[0]) if stored and len(stored[0]) else -1


def _labels(label: Feature | None) -> Sequence[int | str]:
    if label is None or label.kind not in ("integers", "bytes"):
        return []
    return label.integers() if label.kind == "integers" else list(filter(None, map(_text, label.byte_strings())))


def _text(value: memoryview) -> str:
    return printable(str(value, "utf-8", "backslashreplace").replace("\0", "").strip())


@dataclass(frozen=True, kw_only=True)
class RecordImages:
    """The images in records; each record is read whole and compared with its checksum."""

    records: Stored
    checksum: Int64[np.ndarray, " n"]
    size: Int64[np.ndarray, " n"]  # of the images
    image: str  # the feature

    @staticmethod
    def of(shards: Sequence[str], names: Sequence[str], indices: Sequence[Index], image: str) -> "RecordImages":
        """Returns the records of all files, in their order, called `train-00000-of-00010[7]`."""
        counts = [len(index.offset) for index in indices]
        records = Stored(
            files=shards,
            file=np.repeat(np.arange(len(shards), dtype=np.int32), counts),
            offset=np.concatenate([index.offset for index in indices]),
            size=np.concatenate([index.length for index in indices]),
            names=[f"{name}[{number}]" for name, count in zip(names, counts, strict=True) for number in range(count)],
            content=None,
        )
        checksum, size = (np.concatenate([getattr(index, key) for index in indices]) for key in ("checksum", "size"))
        return RecordImages(records=records, checksum=checksum, size=size, image=image)

    @property
    def names(self) -> Sequence[str]:
        return self.records.names

    @property
    def content(self) -> UInt64[np.ndarray, " n"]:
        """What each record's own checksum and length say of it."""
        return self.checksum.astype(np.uint64) << np.uint64(32) | self.records.size.astype(np.uint64)

    def read(self, index: int) -> bytes:
        content = self.records.read(index)
        name = self.names[index]
        if masked_crc32c(content) != self.checksum[index]:
            raise CorruptImage(f"{name} is damaged: its bytes do not fit their checksum")
        feature = read_example(content).get(self.image)
        stored = feature.byte_strings() if feature is not None else []
        if not stored:
            raise CorruptImage(f"{name} has no {self.image!r}")
        return bytes(stored[0])

    def take(self, rows: Int64[np.ndarray, " m"]) -> "RecordImages":
        return replace(self, records=self.records.take(rows), checksum=self.checksum[rows], size=self.size[rows])
