"""A model that no run here has trained, in a run's place: what `evaluate --model M --source S` judges."""

from dataclasses import dataclass
from pathlib import Path

from jaxnets.classifier import Classifier
from jaxnets.config import Config, resolve
from jaxnets.loading import Weights, load
from jaxnets.run.directory import ModelCard, RunDirectory, open_run
from jaxnets.run.resolve import resolve as resolve_model


@dataclass(frozen=True)
class OpenedModel(RunDirectory):
    """Answers what a run directory is asked for an evaluation; there is no such directory, and nothing is written."""

    classifier: Classifier
    source: str  # of the data, as config.data.source

    def read_config(self) -> Config:
        own = self.classifier.preprocess
        data = {"source": self.source, "image_size": (own.height, own.width), "channels": own.channels}
        return resolve({"model": {"name": self.classifier.name}, "data": data})

    def read_model(self) -> ModelCard:
        own = self.classifier
        return ModelCard(
            name=own.name,
            fields={},
            class_names=own.labels,
            preprocess=own.preprocess,
            data={},
            matmul_precision=own.matmul_precision,
            activation=own.activation,
            several_labels=own.several_labels,
            thresholds=own.thresholds,
            temperature=own.temperature,
            refusal=own.refusal,
        )


def open_model(model: str, source: str, checkpoint: str | int = "best", weights: Weights = "ema") -> RunDirectory:
    """Returns what stands for a model in an evaluation: the run, if it is one.

    Args:
        model: a name, a file of weights, a folder or `hf:OWNER/REPO`, as `jaxnets.load` takes it.
        source: the data that it is judged on.

    Raises:
        UserError: if there is no such model, or it cannot be read.
    """
    found = resolve_model(model)
    if found.is_run:
        return open_run(found.location)
    return OpenedModel(Path(found.name), load(model, checkpoint, weights), source)
