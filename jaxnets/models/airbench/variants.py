"""The registered networks of speed runs."""

from collections.abc import Mapping
from typing import Any

from jaxnets.models.family import Entry


def _entry(*widths: int, convolutions: int = 2, scale: float = 1 / 9, **fields: Any) -> Entry:
    return Entry(fields={"widths": widths, "convolutions": convolutions, "scale": scale, "num_classes": 10, **fields})


# The numbers of the names are the accuracies, in percent, that Jordan's recipes reach with them.
ENTRIES: Mapping[str, Entry] = {
    "airbench94": _entry(64, 256, 256),
    "airbench96": _entry(128, 384, 512, convolutions=3, norm_decay=0.9),
    "airbench_small": _entry(32, 128, 128),  # for a CPU: a quarter of airbench94's multiply-adds
}
