"""What a fine-tune says at its start and at its end."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxnets.config import Config
from jaxnets.data.dataset import Dataset
from jaxnets.data.sources import labels_of
from jaxnets.finetune.decide import plan_of
from jaxnets.run.storage import Place
from jaxnets.terminal import shown
from jaxnets.train.display import Display

_log = logging.getLogger(__name__)

_NAMED = 5  # classes
_FEWEST = 20  # validation images, below which that is said


def opening(display: Display, config: Config, data: Dataset, said: Sequence[str]) -> None:
    """Says what is fine-tuned on what."""
    sizes = ", ".join(f"{len(examples):,} {name}" for name, examples in data.splits.items())
    p = data.preprocess
    display.say(shown(f"data: {config.data.source}, {sizes}; {'; '.join((*data.notes, *said))}"))
    display.say(shown(f"model: {config.model.name} from {config.model.pretrained}, images of {p.height}×{p.width}"))
    display.say(f"plan: {plan_of(config)}")
    for warning in warnings(data):
        _log.warning("%s", shown(warning))


def warnings(data: Dataset) -> list[str]:
    """Returns what a user should know of the data before any figure is believed, a sentence each."""
    found = []
    counts = {
        name: np.bincount(labels_of(split)[chosen], minlength=len(data.class_names))
        if not data.several_labels
        else labels_of(split)[chosen].sum(0)
        for name, (split, chosen) in data.selections.items()
    }
    for number, label in enumerate(data.class_names):
        if not counts["train"][number]:
            found.append(f"{label} has no training image, so that it is never learned: add some, or remove it")
    for name in ("validation", "test"):
        lacking = [label for label, count in zip(data.class_names, counts.get(name, ()), strict=False) if not count]
        if lacking:
            listed = ", ".join(lacking[:_NAMED]) + (
                f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
            )
            found.append(f"the {name} split has no image of {listed}: its figures say nothing of that")
    few = len(data.splits["validation"]) if "validation" in data.splits else 0
    if few < _FEWEST:
        found.append(
            f"there are {few} validation images to choose and to judge by: of so few, figures are chance in good part"
        )
    return found


def result_lines(workdir: Place, result: Mapping[str, Any]) -> str:
    """Returns how good the best checkpoint is, and the commands that follow."""
    lines = [f"{name}: {_figures(result[name])}" for name in ("validation", "test") if result.get(name)]
    return "\n".join(
        [
            *lines,
            f"next: python -m jaxnets.evaluate --workdir {workdir}",
            f"      python -m jaxnets.predict --model {workdir} IMAGE …",
            f"      python demo/app.py --model {workdir}",
        ]
    )


def _figures(figures: Mapping[str, Any]) -> str:
    words = []
    for name, value in figures.items():
        if isinstance(value, float):
            words.append(f"{name} {value:.2%}" if name.endswith("accuracy") else f"{name} {value:.4g}")
    return "  ".join(words)
