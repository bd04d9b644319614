"""What tells data from other data, wherever it lies: so that a run goes on with what it began with."""

import zlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int64

from jaxnets.data.sources import Split, labels_of

_CHECKSUMS = {
    "labels_crc32": "images have other classes than they had",
    "examples_crc32": "images were added, removed or renamed",
    "content_crc32": "files hold something else than they did under the same name",
}


def fingerprint(splits: Mapping[str, tuple[Split, Int64[np.ndarray, " n"]]]) -> dict[str, int]:
    """Returns the number of examples of each split, and checksums of their labels, their identities and their content.

    The content of many files is looked at in part: sizes of 50,000 of a split, and all bytes of 64.

    Args:
        splits: by name, a split of a source and which of its examples count.
    """
    sums = dict.fromkeys(_CHECKSUMS, 0)
    for split, chosen in (splits[name] for name in sorted(splits)):
        sums["labels_crc32"] = zlib.crc32(labels_of(split)[chosen].tobytes(), sums["labels_crc32"])
        sums["examples_crc32"] = zlib.crc32(split.identities[chosen].tobytes(), sums["examples_crc32"])
        content = split.content_crc32(chosen)
        sums["content_crc32"] = zlib.crc32(content.to_bytes(4, "little"), sums["content_crc32"])
    return {**{name: len(chosen) for name, (_, chosen) in splits.items()}, **sums}


def changes(before: Mapping[str, int], now: Mapping[str, int]) -> list[str]:
    """Returns what has changed between two fingerprints, a clause each; of an older one, what it says is compared."""
    names = sorted((before.keys() | now.keys()) - _CHECKSUMS.keys())
    sizes = [(name, before.get(name, 0), now.get(name, 0)) for name in names]
    if any(had != has for _, had, has in sizes):
        if "examples_crc32" not in before and sum(had for _, had, _ in sizes) == sum(has for _, _, has in sizes):
            return ["an earlier version of jaxnets drew its test or validation split, by another rule than today's"]
        return [f"the {name} split has {has:,} images, and had {had:,}" for name, had, has in sizes if had != has]
    differing = [key for key in _CHECKSUMS if key in before and before[key] != now.get(key)]
    if "examples_crc32" in differing:  # then other files are looked into
        differing = [key for key in differing if key != "content_crc32"]
    return [_CHECKSUMS[key] for key in differing]
