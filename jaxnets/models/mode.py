"""Which layers of a network compute as they do in training, and which as in evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingBut:
    """Training, but for some layers: they use and keep their running statistics and draw no noise."""

    layers: frozenset[str]  # names under `params`, as "stage1_block2"


Train = bool | TrainingBut


def trains(train: Train, path: Sequence[str]) -> bool:
    """Tells whether the module at `path` of a network computes as in training."""
    if isinstance(train, bool):
        return train
    return not path or path[0] not in train.layers
