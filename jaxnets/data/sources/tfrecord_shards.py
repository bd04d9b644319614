"""TFRecords of `tf.train.Example` messages, as TensorFlow's tools and public buckets have them, without TensorFlow."""

import glob
import io
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from jaxnets.config import DataConfig
from jaxnets.cores import cores
from jaxnets.data.decode import READABLE, read_header
from jaxnets.data.sources.base import Source
from jaxnets.data.sources.bucket import BUCKET
from jaxnets.data.sources.class_file import CLASSES, beside, read_class_names
from jaxnets.data.sources.names import printable
from jaxnets.data.sources.shards import find_shards, shard_names, shard_roles
from jaxnets.data.sources.stored import StoredImages, surveyed
from jaxnets.data.sources.table.assemble import assemble, refuse_missing, roles_of
from jaxnets.data.sources.table.columns import Columns
from jaxnets.data.sources.table.rows import Rows, encode
from jaxnets.data.sources.tfrecord_index import Index, Keys, RecordImages, find_keys, read_index
from jaxnets.errors import UserError

# What files of records are called, beside other files in a folder: a.tfrecord, a.tfrec, a-00000-of-00010.
_SHARD = re.compile(r"\.tf_?rec(ord)?s?($|[-.])|-\d+-of-\d+$", re.IGNORECASE)
_BETWEEN = "\x1f"  # labels of one record; no name holds it (ASCII's unit separator)
_WHOLE_NUMBER = re.compile(r"\d+")


def open_tfrecord(location: str, spec: DataConfig, known: Sequence[str] | None) -> Source:
    """Opens TFRecords: lengths and labels are read once, and images then by their position, checksums and all.

    The features are found by their names (`image/encoded` and `image/class/label` as TensorFlow's own, `image` and
    `label`, `class` or `target`, …) or named by `config.data.table.image` and `.label`. A label is a number or a text;
    records that have several make a data set of several labels. What numbers mean is said by
    `config.data.table.classes`, by `classes.txt` or TFDS's `label.labels.txt` beside the files, or by the feature
    `image/class/text`; else they are the classes' names.

    Args:
        location: a file, a pattern (`DIR/train-*`, `DIR/train-{00000..01023}-of-01024`), or a folder of files called
            .tfrecord, .tfrec or -00000-of-00010; a pattern of a bucket too (`gs://BUCKET/train-*`), of which everything
            is read once to find the records.
        spec: `table.image`, `table.label`, `table.label_offset`, `table.classes`, `table.skip_missing`, `white_level`.
        known: classes to evaluate on, or None to train.

    Returns:
        A source with the splits that the files' names say; else "train", or "all".

    Raises:
        UserError: if there is no such file, one is no TFRecord file, compressed, damaged or cut short, or the features
            cannot be told.
    """
    shards = _find(location)
    title = printable(os.path.basename(shards[0])) if len(shards) == 1 else printable(location)
    names = shard_names(shards)
    keys = find_keys(shards, title, spec.table)
    with ThreadPoolExecutor(cores()) as pool:
        indices = list(pool.map(lambda path: read_index(path, keys), shards))
    roles, notes = shard_roles(shards, title, known is not None)
    images = RecordImages.of(shards, names, indices, keys.image)
    if not len(images.names):
        raise UserError(f"{title} has no records")
    cells, several = _cells(indices, spec.table.label_offset)
    table = replace(spec.table, separator=_BETWEEN) if several else spec.table
    rows = Rows(
        title=title,
        unit="record",
        numbers=np.arange(len(images.names)),
        names=images.names,
        columns=_columns(keys),
        label=encode(cells),
        part=None if set(roles) == {"all"} else encode(roles[file] for file in images.records.file.tolist()),
        class_names=_class_names(shards[0], keys, spec, indices, cells),
    )
    if rows.class_names is not None and not spec.table.label_offset and "0" not in cells and not several:
        notes.append(
            f"{title} has no record of the class 0 ({rows.class_names[0]}): if its labels count from 1, set "
            f"config.data.table.label_offset=1"
        )
    notes += refuse_missing(rows, images.size < 0, f"is missing: they have no feature {keys.image!r}", spec.table)
    _refuse_raw(images, title, keys)
    codes, _, said = roles_of(rows, spec.table, known is not None)
    stored = StoredImages(images, spec.white_level)
    source = surveyed(assemble(rows, stored, codes, table, known, f"tfrecord:{printable(location)}"))
    return replace(source, notes=(*notes, *said, *source.notes))


def _columns(keys: Keys) -> Columns:
    return Columns(
        image=keys.image,
        label=keys.label,
        labels=(),
        split=None,
        flag=None,
        surely_split=True,
        group=None,
        note=None,
    )


def _find(location: str) -> list[str]:
    folder = os.path.expanduser(location)
    if location.startswith(BUCKET) or not os.path.isdir(folder):
        return find_shards(location, "tfrecord", "")
    found = sorted(glob.glob(os.path.join(glob.escape(folder), "**", "*"), recursive=True))
    shards = [path for path in found if _SHARD.search(os.path.basename(path)) and os.path.isfile(path)]
    if not shards:
        raise UserError(
            f"config.data.source tfrecord:{printable(location)}: the folder has no files that are called *.tfrecord, "
            f"*.tfrec or *-00000-of-00010; give a pattern in quotes (tfrecord:'DIR/train-*')"
        )
    return shards


def _cells(indices: Sequence[Index], offset: int) -> tuple[list[str], bool]:
    """Returns the labels of all records as text, "" for none, and whether one has several."""
    cells: list[str] = []
    several = False
    for index in indices:
        # Below 0 is what data sets of contests say of their test images.
        labels = index.labels or [str(n - offset) if n >= offset else "" for n in index.numbers.tolist()]
        position = 0
        for count in index.counts.tolist():
            cells.append(_BETWEEN.join(filter(None, labels[position : position + count])))
            position += count
            several = several or count > 1
    return cells, several


def _class_names(
    shard: str, keys: Keys, spec: DataConfig, indices: Sequence[Index], cells: Sequence[str]
) -> list[str] | None:
    """Returns what the numbers of the labels mean; None where nothing says so."""
    if spec.table.classes is not None:
        names = read_class_names(spec.table.classes)
        if names is None:
            raise UserError(f"config.data.table.classes {printable(spec.table.classes)} does not exist")
    else:
        files = (CLASSES, f"{keys.label}.labels.txt")  # ours, and what TFDS calls its own
        found = (read_class_names(beside(shard, file)) for file in files)
        names = next(filter(None, found), None) or _from_texts(indices, spec.table.label_offset)
    if names is None:
        return None
    numbers = {int(text) for cell in set(cells) for text in cell.split(_BETWEEN) if _WHOLE_NUMBER.fullmatch(text)}
    if numbers and max(numbers) >= len(names):
        raise UserError(
            f"{printable(shard)} and the files with it have labels up to {max(numbers)}, but there are {len(names)} "
            f"names of classes, for 0 … {len(names) - 1}: if labels count from 1, set "
            f"--config.data.table.label_offset=1"
        )
    return names


def _from_texts(indices: Sequence[Index], offset: int) -> list[str] | None:
    """Returns the names that records give beside their numbers; numbers where two have one name, or one has none."""
    texts: dict[int, str] = {}
    for index in indices:
        for number, text in index.texts.items():
            texts.setdefault(number - offset, text)
    if not texts or min(texts) < 0:
        return None
    names = [texts.get(number, "") or str(number) for number in range(max(texts) + 1)]
    return [f"{name} ({number})" if names.count(name) > 1 else name for number, name in enumerate(names)]


def _refuse_raw(images: RecordImages, title: str, keys: Keys) -> None:
    first = int(np.argmax(images.size >= 0))
    if read_header(io.BytesIO(images.read(first))) is None:
        raise UserError(
            f"the feature {keys.image!r} of {title} holds no encoded image ({READABLE}) in {images.names[first]}: "
            f"pixels as they are cannot be read; config.data.table.image names another feature"
        )
