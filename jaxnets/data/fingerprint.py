"""What tells data from other data, wherever it lies: so that a run goes on with what it began with."""

import zlib
from collections.abc import Mapping

import numpy as np

from jaxnets.data.sources import Split

_CHECKSUMS = {
    "labels_crc32": "images have other classes than they had",
    "examples_crc32": "images were added, removed or renamed",
    "content_crc32": "files hold something else than they did under the same name",
}


def fingerprint(splits: Mapping[str, Split]) -> dict[str, int]:
    """Returns the number of examples of each split, and checksums of their labels, their identities and their content.

    The content of many files is looked at in part: sizes of 50,000 of a split, and all bytes of 64.
    """
    sums = dict.fromkeys(_CHECKSUMS, 0)
    for name in sorted(splits):
        split = splits[name]
        sums["labels_crc32"] = zlib.crc32(split.labels.tobytes(), sums["labels_crc32"])
        sums["examples_crc32"] = zlib.crc32(split.identities.tobytes(), sums["examples_crc32"])
        content = split.content_crc32(np.arange(len(split)))
        sums["content_crc32"] = zlib.crc32(content.to_bytes(4, "little"), sums["content_crc32"])
    return {**{name: len(split) for name, split in splits.items()}, **sums}


def changes(before: Mapping[str, int], now: Mapping[str, int]) -> list[str]:
    """Returns what has changed between two fingerprints, a clause each; of an older one, what it says is compared."""
    sizes = [
        f"the {name} split has {now.get(name, 0):,} images, and had {before.get(name, 0):,}"
        for name in sorted((before.keys() | now.keys()) - _CHECKSUMS.keys())
        if before.get(name) != now.get(name)
    ]
    if sizes:
        return sizes
    differing = [key for key in _CHECKSUMS if key in before and before[key] != now.get(key)]
    if "examples_crc32" in differing:  # then other files are looked into
        differing = [key for key in differing if key != "content_crc32"]
    return [_CHECKSUMS[key] for key in differing]
