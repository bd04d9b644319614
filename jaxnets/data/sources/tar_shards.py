"""Tar archives of images: WebDataset's shards, or folders of classes."""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxnets.config import DataConfig
from jaxnets.cores import cores
from jaxnets.data.decode import READABLE
from jaxnets.data.sources.base import Source
from jaxnets.data.sources.class_file import CLASSES, beside, read_class_names
from jaxnets.data.sources.names import printable
from jaxnets.data.sources.shards import find_shards, shard_names, shard_roles
from jaxnets.data.sources.stored import Stored, StoredImages, surveyed
from jaxnets.data.sources.table.assemble import assemble, roles_of
from jaxnets.data.sources.table.columns import Columns, as_far_as_there, choose
from jaxnets.data.sources.table.rows import Rows, encode, parse_flag
from jaxnets.data.sources.tar_folders import source_of_folders
from jaxnets.data.sources.tar_index import LABELS, Members, key_of, read_members
from jaxnets.errors import UserError, quoted

_BETWEEN = "\x1f"  # labels that are a list in JSON; no name holds it (ASCII's unit separator)
_IMAGE = "image"


def open_tar(location: str, spec: DataConfig, known: Sequence[str] | None) -> Source:
    """Opens tar archives, whose headers are read once and whose images are then read by their position.

    As WebDataset writes them, `0001.jpg` lies beside its label, `0001.cls` or `0001.txt` (a number or a name) or
    `0001.json` (its key `label` or the like, or `config.data.table.label`); `classes.txt` beside the archives names the
    numbers' classes, a line each. Where no image has a label so, folders are classes, as in `folder:`.

    Args:
        location: an archive, a folder of some, a pattern (`DIR/train-*.tar`, `DIR/{0000..0127}.tar`); of a bucket too
            (`gs://BUCKET/train-*.tar`).
        spec: `table.label`, `table.group`, `table.separator`, `table.skip_missing`, `white_level`.
        known: classes to evaluate on, or None to train.

    Returns:
        A source with the splits that the archives' names say, or the folders in them; else "train", or "all".

    Raises:
        UserError: if there is no such archive, one is compressed or cut short, or images have no label.
    """
    shards = find_shards(location, "tar", ".tar")
    title = printable(os.path.basename(shards[0])) if len(shards) == 1 else printable(location)
    with ThreadPoolExecutor(cores()) as pool:
        members = list(pool.map(read_members, shards))
    if not any(text is None for each in members for text in each.texts):
        raise UserError(f"{title} has no image ({READABLE})")
    roles, notes = shard_roles(shards, title, known is not None)
    if links := sum(each.links for each in members):
        notes.append(f"passed over in {title}: {links:,} links")
    if others := sum(each.others for each in members):
        notes.append(f"passed over in {title}: {others:,} files of other kinds")
    description = f"tar:{printable(location)}"
    names = shard_names(shards)
    samples = [sample for shard, each in enumerate(members) for sample in _samples(each, shard, names[shard])]
    if not any(sample.label is not None for sample in samples):
        source = source_of_folders(shards, names, members, roles, spec, known, description)
    else:
        stored = Stored(
            files=shards,
            file=np.array([sample.shard for sample in samples], np.int32),
            offset=np.array([members[each.shard].offset[each.number] for each in samples], np.int64),
            size=np.array([members[each.shard].size[each.number] for each in samples], np.int64),
            names=[sample.name for sample in samples],
            content=None,
        )
        named = read_class_names(beside(shards[0], CLASSES))
        rows, table = _rows(samples, roles, title, spec, named, known is None)
        codes, _, said = roles_of(rows, spec.table, known is not None)
        source = assemble(rows, StoredImages(stored, spec.white_level), codes, table.table, known, description)
        notes += said
    return replace(surveyed(source), notes=(*notes, *source.notes))


@dataclass(frozen=True)
class _Sample:
    shard: int
    number: int  # of the image among the archive's members
    name: str
    label: tuple[str, bytes] | None  # suffix and content of the file that says it


def _samples(members: Members, shard: int, title: str) -> list[_Sample]:
    """Returns the images of an archive, each with the file that says its label."""
    images: dict[str, list[int]] = {}
    labels: dict[str, tuple[str, bytes]] = {}
    for number, (name, text) in enumerate(zip(members.names, members.texts, strict=True)):
        key, suffix = key_of(name)
        if text is None:
            images.setdefault(key, []).append(number)
            continue
        kind = "." + suffix
        if kind in LABELS and (key not in labels or LABELS.index(kind) <= LABELS.index(labels[key][0])):
            labels[key] = kind, text
    if not labels.keys() & images.keys():  # folders of classes: every image counts, whatever dots its name has
        return [
            _Sample(shard, number, f"{title}/{printable(name)}", None)
            for number, (name, text) in enumerate(zip(members.names, members.texts, strict=True))
            if text is None
        ]
    chosen = {key: _one_image([members.names[number] for number in each], each, title) for key, each in images.items()}
    return [
        _Sample(shard, number, f"{title}/{printable(members.names[number])}", labels.get(key))
        for key, number in chosen.items()
    ]


def _one_image(names: Sequence[str], numbers: Sequence[int], title: str) -> int:
    """Returns the image of a sample: 0001.jpg, and not 0001.mask.png; of one name the last, as for tar."""
    if len(numbers) == 1:
        return numbers[0]
    plain = {name: number for name, number in zip(names, numbers, strict=True) if "." not in key_of(name)[1]}
    if len(plain) != 1:
        raise UserError(
            f"{title} has {len(numbers)} images of one sample ({', '.join(map(quoted, names[:3]))}), and which is "
            f"meant cannot be told: leave one whose name has a single dot"
        )
    return next(iter(plain.values()))


def _rows(
    samples: Sequence[_Sample],
    roles: Sequence[str],
    title: str,
    spec: DataConfig,
    class_names: Sequence[str] | None,
    strict: bool,
) -> tuple[Rows, DataConfig]:
    """Returns what the files beside the images say, and the spec with the separator of lists of labels."""
    described: Columns | None = None
    labels, groups = [], []
    lists = False
    for sample in samples:
        label, group = "", ""
        if sample.label is not None:
            kind, content = sample.label
            value: Any = _text(content, sample.name)
            if kind == ".json":
                value = _parsed(value, sample.name)
                if isinstance(value, Mapping):
                    if described is None:
                        keys = [str(key) for key in value]
                        table = spec.table if strict else as_far_as_there(spec.table, keys)
                        described = choose(keys, f"{sample.name}'s JSON", table, _IMAGE)
                    group = _written(value.get(described.group or ""))
                    if described.labels:
                        flags = {name: _written(value.get(name)) for name in described.labels}
                        value = [name for name, f in flags.items() if parse_flag(f, title, sample.name, name)]
                    else:
                        value = value.get(described.label or "")
            lists = lists or isinstance(value, list)
            label = _BETWEEN.join(map(_written, value)) if isinstance(value, list) else _written(value)
        labels.append(label)
        groups.append(group)
    if lists:
        spec = replace(spec, table=replace(spec.table, separator=_BETWEEN))
    has_groups = described is not None and described.group is not None
    columns = Columns(
        image=_IMAGE,
        label="label",
        labels=(),
        split=None,
        flag=None,
        surely_split=True,
        group=described.group if described else None,
        note=described.note if described else None,
    )
    rows = Rows(
        title=title,
        unit="sample",
        numbers=np.arange(len(samples)),
        names=[sample.name for sample in samples],
        columns=columns,
        label=encode(labels),
        part=None if set(roles) == {"all"} else encode(roles[sample.shard] for sample in samples),
        group=encode(groups) if has_groups else None,
        class_names=class_names,
    )
    return rows, spec


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise UserError(f"the label of {name} must be text in UTF-8: {error}") from None


def _parsed(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the JSON beside {name} cannot be read: {error}") from None


def _written(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
