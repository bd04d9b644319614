"""Data sets of Hugging Face `datasets`: of the Hub, saved on a disk, or Parquet files."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jaxnets.config import DataConfig
from jaxnets.data.sources.arrow_images import Cells, store
from jaxnets.data.sources.base import Source
from jaxnets.data.sources.names import printable
from jaxnets.data.sources.split_names import split_roles
from jaxnets.data.sources.stored import StoredImages, surveyed
from jaxnets.data.sources.table.arrow import (
    Described,
    choose_columns,
    concatenated,
    describe,
    read_rows,
    refuse_other_names,
)
from jaxnets.data.sources.table.assemble import assemble, refuse_missing, roles_of
from jaxnets.data.sources.table.rows import encode
from jaxnets.errors import UserError

if TYPE_CHECKING:
    import datasets

_NAME = re.compile(r"(?P<name>[^:@]+)(:(?P<config>[^:@]+))?(@(?P<revision>[^:@]+))?")


def open_hf(location: str, spec: DataConfig, known: Sequence[str] | None) -> Source:
    """Opens a data set through Hugging Face `datasets`; images are read from its Arrow files, and decoded once.

    The image is the column of the feature Image, the class that of ClassLabel, else columns as in `csv:`. No code of a
    data set is executed.

    Args:
        location: `OWNER/NAME`, with `:CONFIG` and `@REVISION` where they matter; or a folder that `save_to_disk` wrote,
            one of Parquet files, or such a file.
        spec: `directory` is the cache of `datasets`; None: its own default. `table`, `white_level`.
        known: classes to evaluate on, or None to train.

    Returns:
        A source with the splits that the data set has.

    Raises:
        UserError: if `datasets` is missing, the data set cannot be had, or it has no images with a class.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"config.data.source hf:{printable(location)} needs Hugging Face datasets: pip install 'jaxnets[hf]'"
        ) from None
    title = f"hf:{printable(location)}"
    path = os.path.expanduser(location)
    is_local = location.startswith(("/", "~", ".")) or os.path.exists(path)
    directory = None if spec.directory is None else os.path.expanduser(spec.directory)
    parts, notes = _splits(_load(datasets, path if is_local else location, is_local, directory, title), title, known)
    first = next(iter(parts.values()))
    described = _described(datasets, first)
    for name, part in parts.items():
        refuse_other_names(described, _described(datasets, part), f"the split {name} of {title}")
    schema = first.data.table.schema
    columns, table_spec = choose_columns(schema, described, title, spec.table, known is None)
    if columns.image not in described.images:
        raise UserError(
            f"the column {columns.image!r} of {title} must hold images (the feature Image), found "
            f"{first.features.get(columns.image)}: name another with config.data.table.image"
        )
    import huggingface_hub.constants

    allowed = [datasets.config.HF_DATASETS_CACHE, huggingface_hub.constants.HF_HUB_CACHE, *filter(None, [directory])]
    allowed += [path if os.path.isdir(path) else os.path.dirname(os.path.abspath(path))] if is_local else []
    tables = {name: part.flatten_indices() if part._indices is not None else part for name, part in parts.items()}
    wanted = [name for name in columns.wanted() if name != columns.image]
    without = [name for name, each in tables.items() if columns.image not in each.column_names]
    if without:
        raise UserError(f"the split {without[0]} of {title} has no column {columns.image!r}, which holds the images")
    read = concatenated([each.data.table for each in tables.values()], wanted, title)
    part = None
    if set(parts) != {"all"}:
        part = encode(name for name, each in tables.items() for _ in range(len(each)))
    rows = read_rows(read, columns, described, title, part)
    if not len(rows):
        raise UserError(f"{title} has no rows")
    stored = store(
        [Cells(each.data.table[columns.image], [str(folder) for folder in allowed]) for each in tables.values()],
        [f"{title}/{name}" for name in tables],
        [f"{each._fingerprint}/{columns.image}" for each in tables.values()],
    )
    missing = refuse_missing(rows, stored.size < 0, "is empty", table_spec)
    codes, _, said = roles_of(rows, table_spec, known is not None)
    source = surveyed(assemble(rows, StoredImages(stored, spec.white_level), codes, table_spec, known, title))
    return replace(source, notes=(*notes, *said, *missing, *source.notes))


def _load(datasets: Any, location: str, is_local: bool, directory: str | None, title: str) -> Any:
    """Returns what `datasets` makes of it: a data set, or one for each split."""
    try:
        if is_local and os.path.isfile(location):
            return datasets.load_dataset("parquet", data_files=location, cache_dir=directory)
        if is_local and any(os.path.isfile(os.path.join(location, f)) for f in ("dataset_dict.json", "state.json")):
            return datasets.load_from_disk(location)
        if is_local:
            if not os.path.isdir(location):
                raise UserError(f"{title} leads to no folder and no file")
            return datasets.load_dataset(location, cache_dir=directory)
        match = _NAME.fullmatch(location)
        if match is None:
            raise UserError(f"{title} must be hf:OWNER/NAME, with :CONFIG and @REVISION where they matter")
        return datasets.load_dataset(match["name"], match["config"], revision=match["revision"], cache_dir=directory)
    except UserError:
        raise
    except Exception as error:  # of datasets, pyarrow, huggingface_hub and httpx
        text = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{title} cannot be opened: {text[:300]}"
            + ("" if is_local else "; without a network, give a folder that save_to_disk or a download has made")
        ) from error


def _splits(loaded: Any, title: str, known: Sequence[str] | None) -> tuple[dict[str, "datasets.Dataset"], list[str]]:
    """Returns the splits that are understood, by their roles, and notes on the others."""
    if not hasattr(loaded, "items"):
        return {"train" if known is None else "all": loaded}, []
    roles = split_roles(loaded.keys(), title, alone=True)
    parts: dict[str, Any] = {role: loaded[names[0]] for role, names in roles.items() if names}
    chosen = [names[0] for names in roles.values() if names]
    notes = [f"passed over the split {name} of {title}" for name in loaded if name not in chosen]
    if not parts and len(loaded) == 1:
        return {"train" if known is None else "all": next(iter(loaded.values()))}, []
    if not parts:
        raise UserError(f"{title} has the splits {', '.join(loaded)}, none of which is called train or test")
    if known is None and len(parts) == 1:
        return {"train": next(iter(parts.values()))}, notes  # one that is called "test" for want of others
    return parts, notes


def _described(datasets: Any, part: "datasets.Dataset") -> Described:
    """Returns the columns of images and the names of classes, by the features; by Arrow's types where they say none."""
    images = tuple(name for name, feature in part.features.items() if isinstance(feature, datasets.Image))
    class_names = {}
    for name, feature in part.features.items():
        inner = getattr(feature, "feature", feature)  # of a list
        if isinstance(inner, datasets.ClassLabel):
            class_names[name] = list(inner.names)
    return Described(images=images or describe(part.data.table.schema).images, class_names=class_names)
