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
_IMAGE, _CLS = "image", "cls"


def open_tar(location: str, spec: DataConfig, known: Sequence[str] | None) -> Source:
    """Opens tar archives, whose headers are read once and whose images are then read by their position.

    As WebDataset writes them, `0001.jpg` lies beside its label, `0001.cls` or `0001.txt` (a number or a name) or
    `0001.json` (its key `label` or the like, or `config.data.table.label`); `classes.txt` beside the archives names the
    numbers' classes, a line each. Where no image has a label so, folders are classes, as in `folder:`.

    Args:
        location: an archive, a folder of some, a pattern (`DIR/train-*.tar`, `DIR/{0000..0127}.tar`); of a bucket too
            (`gs://BUCKET/train-*.tar`).
        spec: `table.label`, `.labels`, `.separator`, `.split`, `.group`, `.skip_missing`, `white_level`.
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
    if not any(sample.texts for sample in samples):
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
    texts: Mapping[str, bytes]  # of the files that say its label and more, by their suffix


def _samples(members: Members, shard: int, title: str) -> list[_Sample]:
    """Returns the images of an archive, each with the files that say its label."""
    images: dict[str, list[int]] = {}
    texts: dict[str, dict[str, bytes]] = {}
    for number, (name, text) in enumerate(zip(members.names, members.texts, strict=True)):
        key, suffix = key_of(name)
        if text is None:
            images.setdefault(key, []).append(number)
            continue
        if "." + suffix in LABELS:
            texts.setdefault(key, {})["." + suffix] = text
    if not texts.keys() & images.keys():  # folders of classes: every image counts, whatever dots its name has
        return [
            _Sample(shard, number, f"{title}/{printable(name)}", {})
            for number, (name, text) in enumerate(zip(members.names, members.texts, strict=True))
            if text is None
        ]
    chosen = {key: _one_image([members.names[number] for number in each], each, title) for key, each in images.items()}
    return [
        _Sample(shard, number, f"{title}/{printable(members.names[number])}", texts.get(key, {}))
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
    described = [_parsed(sample) for sample in samples]
    columns = Columns(
        image=_IMAGE, label=_CLS, labels=(), split=None, flag=None, surely_split=True, group=None, note=None
    )
    keys = dict.fromkeys(key for value in described if isinstance(value, Mapping) for key in value)
    if keys:
        table = spec.table if strict else as_far_as_there(spec.table, keys)
        with_json = [sample for sample in samples if ".json" in sample.texts]
        if not table.label and not table.labels and all("." + _CLS in sample.texts for sample in with_json):
            keys[_CLS], table = None, replace(table, label=_CLS)  # a column as any other
        columns = choose(list(keys), f"the JSON of {title}", table, _IMAGE)
    labels, splits, groups = [], [], []
    lists = False
    for sample, value in zip(samples, described, strict=True):
        said = value if isinstance(value, Mapping) else {}
        splits.append(_written(said.get(columns.split or "")))
        groups.append(_written(said.get(columns.group or "")))
        label = _label(sample, value, columns, title)
        lists = lists or isinstance(label, list)
        labels.append(_BETWEEN.join(map(_written, label)) if isinstance(label, list) else _written(label))
    if lists:
        spec = replace(spec, table=replace(spec.table, separator=_BETWEEN))
    rows = Rows(
        title=title,
        unit="sample",
        numbers=np.arange(len(samples)),
        names=[sample.name for sample in samples],
        columns=replace(columns, labels=()),  # which are read: each a name of the label
        label=encode(labels),
        split=encode(splits) if columns.split is not None else None,
        part=None if set(roles) == {"all"} else encode(roles[sample.shard] for sample in samples),
        group=encode(groups) if columns.group is not None else None,
        class_names=class_names,
    )
    return rows, spec


def _label(sample: _Sample, described: Any, columns: Columns, title: str) -> Any:
    """Returns the label of an image: of the first file that is there, of a JSON's keys those that are meant."""
    kinds = [kind for kind in LABELS if kind in sample.texts]
    if kinds[:1] == ["." + _CLS] and columns.label != _CLS and isinstance(described, Mapping):
        kinds = [".json"]  # whose key is asked for
    if kinds[:1] != [".json"]:
        return _text(sample.texts[kinds[0]], sample.name) if kinds else None
    if not isinstance(described, Mapping):
        return described
    if not columns.labels:
        return described.get(columns.label or "")
    flags = {name: _written(described.get(name)) for name in columns.labels}
    return [name for name, flag in flags.items() if parse_flag(flag, title, sample.name, name)]


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise UserError(f"the label of {name} must be text in UTF-8: {error}") from None


def _parsed(sample: _Sample) -> Any:
    """Returns what the JSON beside an image holds, None without one."""
    content = sample.texts.get(".json")
    if content is None:
        return None
    try:
        return json.loads(_text(content, sample.name))
    except (ValueError, RecursionError) as error:
        raise UserError(f"the JSON beside {sample.name} cannot be read: {error}") from None


def _written(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
