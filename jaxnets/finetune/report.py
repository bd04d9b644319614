"""What a fine-tune says at its start and at its end."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxnets.config import Config
from jaxnets.data.dataset import Dataset
from jaxnets.finetune.decide import plan_of
from jaxnets.run.storage import Place
from jaxnets.terminal import shown
from jaxnets.train.display import Display


def opening(display: Display, config: Config, data: Dataset, said: Sequence[str]) -> None:
    """Says what is fine-tuned on what."""
    sizes = ", ".join(f"{len(examples):,} {name}" for name, examples in data.splits.items())
    p = data.preprocess
    display.say(shown(f"data: {config.data.source}, {sizes}; {'; '.join((*data.notes, *said))}"))
    display.say(shown(f"model: {config.model.name} from {config.model.pretrained}, images of {p.height}×{p.width}"))
    display.say(f"plan: {plan_of(config)}")


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
