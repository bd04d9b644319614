"""What a column of the source's table says of each example that is evaluated."""

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int64

from jaxnets.config import DataConfig
from jaxnets.data.examples import Examples
from jaxnets.data.sources import open_labelled
from jaxnets.data.sources.names import hashes
from jaxnets.errors import UserError, nearest, quoted

_SHOWN = 12  # columns that a message lists


def column_values(
    data: DataConfig,
    class_names: tuple[str, ...],
    examples: Examples,
    index: Int64[np.ndarray, " m"],
    column: str,
) -> tuple[str, ...]:
    """Returns the text of a column for some examples, "" where its cell is empty.

    The table is read once more with this column as its group, and its rows are told by the identity of their images,
    so that it does not matter how they were divided.

    Args:
        data: `source` is the table that is evaluated.
        class_names: of the model.
        examples: of a split of that table.
        index: which of them.
        column: its name, as the table has it.

    Raises:
        UserError: if the source is no table, or has no such column, or images are in rows with different values.
    """
    keys = replace(data, table=replace(data.table, group=column))
    try:
        source = open_labelled(keys, class_names)
    except UserError as error:  # it is the column of the images, or of the labels
        raise UserError(f"--by {column} cannot be the group of each image: {error}") from error
    grouped = source.grouped
    if grouped is None:
        raise UserError(
            f"--by needs a table, with a column for the group of each image, and {source.description} is none: give "
            "csv:FILE with --source, or train with it"
        )
    if grouped.column is None or _plain(grouped.column) != _plain(column):
        shown = ", ".join(map(quoted, grouped.columns[:_SHOWN]))
        more = f" and {len(grouped.columns) - _SHOWN} more" if len(grouped.columns) > _SHOWN else ""
        raise UserError(
            f"--by names the column {quoted(column)}, which {source.description} does not have"
            f"{nearest(column, grouped.columns)}; it has {shown or 'none'}{more}"
        )
    text_of = dict(zip(_hashed(grouped.values).tolist(), grouped.values, strict=True))
    group_of: dict[int, str] = {}
    for split in source.splits.values():
        groups = split.groups
        assert groups is not None  # the table has the column
        for identity, group in zip(split.identities.tolist(), groups.tolist(), strict=True):
            group_of[identity] = text_of.get(group, "")
    split, chosen = examples.stored
    identities = split.identities[chosen[index]].tolist()
    missing = sum(identity not in group_of for identity in identities)
    if missing:
        raise UserError(
            f"{missing:,} of {len(identities):,} images that are evaluated are not in {source.description}: give --by "
            "for the table that they are of"
        )
    return tuple(group_of[identity] for identity in identities)


def _hashed(values: Sequence[str]) -> np.ndarray:
    return hashes(value.encode("utf-8", "surrogateescape") for value in values)


def _plain(name: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKC", name).casefold() if c.isalnum())
