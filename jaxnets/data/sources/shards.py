"""Files that hold one data set in parts, `train-00000-of-00010.parquet`, and the splits that their names say."""

import glob
import os
import re
from collections.abc import Sequence

from jaxnets.data.sources.bucket import BUCKET, matching
from jaxnets.data.sources.names import printable
from jaxnets.data.sources.split_names import role_of
from jaxnets.errors import UserError, quoted

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST = 100_000  # files that a range of numbers may mean


def find_shards(location: str, kind: str, suffix: str) -> list[str]:
    """Returns the paths of a file, of the files that a pattern fits, or of those of a suffix in a folder, sorted.

    A pattern has `*`, `?`, `[…]` or a range of numbers, `{000..127}`, of which each must be there.

    Raises:
        UserError: if there are none, or one of a range is missing.
    """
    in_bucket = location.startswith(BUCKET)
    path = location if in_bucket else os.path.expanduser(location)
    if not in_bucket and os.path.isdir(path):
        found = sorted(glob.glob(os.path.join(glob.escape(path), "**", f"*{suffix}"), recursive=True))
        if not found:
            raise UserError(f"config.data.source {kind}:{printable(location)}: the folder has no files *{suffix}")
        return found
    if not in_bucket and os.path.isfile(path):
        return [path]  # whatever signs its name has
    patterns = _ranges(path)
    matches = [matching(each) if in_bucket else sorted(filter(os.path.isfile, glob.glob(each))) for each in patterns]
    missing = [each for each, found in zip(patterns, matches, strict=True) if not found]
    if missing and len(patterns) > 1:
        raise UserError(
            f"config.data.source {kind}:{printable(location)} means {len(patterns)} files, and {len(missing)} of them "
            f"are not there ({printable(missing[0])} for one)"
        )
    found = [each for some in matches for each in some]
    if not found:
        raise UserError(
            f"config.data.source {kind}:{printable(location)} leads to no file: expected a file, or a pattern in "
            f"quotes ({kind}:'DIR/train-*{suffix}')"
        )
    return found


def _ranges(pattern: str) -> list[str]:
    """Returns the patterns that one with a range of numbers stands for."""
    match = _RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last, width = int(match[1]), int(match[2]), len(match[1])
    if not 0 <= last - first < _MOST:
        raise UserError(f"the range {match[0]} must rise, and have at most {_MOST:,} numbers")
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [each for n in range(first, last + 1) for each in _ranges(f"{before}{n:0{width}d}{after}")]


def shard_names(files: Sequence[str]) -> list[str]:
    """Returns what the files are called from the folder that all lie in, wherever that is."""
    common = os.path.dirname(files[0]) if len(files) == 1 else os.path.commonpath([os.path.dirname(f) for f in files])
    return [printable(os.path.relpath(file, common)) for file in files]


def shard_roles(files: Sequence[str], title: str, known: bool) -> tuple[list[str], list[str]]:
    """Returns the split of each file by its name, else by its folder's, and notes.

    Where all are of one split, or of none, they are "train", or "all" to evaluate on.

    Raises:
        UserError: if some say their split and others do not.
    """
    names = shard_names(files)
    found = [role_of(os.path.basename(name).partition(".")[0]) or role_of(os.path.dirname(name)) for name in names]
    whole = "all" if known else "train"
    if len(set(found)) > 1:
        if None in found:
            silent = names[found.index(None)]
            raise UserError(
                f"{title} has files whose names say a split and others that say none ({quoted(silent)}): rename them, "
                f"or give those of one kind"
            )
        return [str(role) for role in found], []
    if found[0] is not None and not known and found[0] != "train":
        return [whole] * len(files), [f"trained on the {found[0]} files of {title}: there are no others"]
    return [whole if found[0] is None else str(found[0]) if known else whole] * len(files), []
