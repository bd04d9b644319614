"""What a model card is made of, gathered from a run directory; what is not known is None."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from flax import linen as nn

from jaxnets.config import Config
from jaxnets.errors import UserError
from jaxnets.evaluate.card.public import PublicSource, public_source
from jaxnets.export.timm_layout import NotInTimm, architecture_of
from jaxnets.models.describe import size
from jaxnets.run.build import build_model
from jaxnets.run.checkpoints import read_progress, steps
from jaxnets.run.curves import read_rows
from jaxnets.run.directory import ModelCard, RunDirectory, read_json
from jaxnets.run.storage import kind_of

REPOSITORY = "OWNER/REPO"  # stands for the name that the model gets on the Hub, until it has one


@dataclass(frozen=True, kw_only=True)
class Facts:
    model: ModelCard
    config: Config
    step: int  # of the weights
    source: PublicSource
    parameters: int
    multiply_adds: int
    metrics: Mapping[str, Any] | None  # of an evaluation of these weights: metrics.json
    validation: Mapping[str, Any] | None  # figures of these weights while they were trained
    images_per_second: float | None  # of the training, as it was noted; the median of the rows
    has_test: bool
    timm: str | None  # timm's name of the network; None: timm has none that is the same
    repository: str = REPOSITORY
    version: str | None = None  # of jaxnets

    @property
    def title(self) -> str:
        """What the model is called: its network and what it was trained on."""
        return f"{self.model.name} on {self.source.name}"

    @property
    def images_seen(self) -> int:
        return self.step * self.config.batch_size


def gather(
    run: RunDirectory,
    step: int,
    metrics: Mapping[str, Any] | None,
    repository: str = REPOSITORY,
    model: ModelCard | None = None,
) -> Facts:
    """Returns what is known of a run's checkpoint.

    Args:
        run: a run directory.
        step: of the checkpoint that the card is of.
        metrics: of an evaluation of it, as metrics.json holds them; None: there was none.
        repository: what the model is called on the Hub.
        model: what it is, where that is not what model.json says of the averaged weights.

    Raises:
        UserError: if the run cannot be read.
    """
    model, config = model or run.read_model().as_answered(step, "ema"), run.read_config()
    try:
        rows = read_rows(run.metrics)
    except OSError:
        rows = []
    network, seen = build_model(model), model.preprocess
    counted = size(network, seen.height, seen.width, seen.channels)
    speeds = [row["train/images_per_second"] for row in rows if row.get("train/images_per_second")]
    return Facts(
        model=model,
        config=config,
        step=step,
        source=public_source(config.data.source),
        parameters=counted.parameters,
        multiply_adds=counted.multiply_adds,
        metrics=None if metrics is None else _at_temperature(metrics, model.temperature),
        validation=_validation(run, step),
        images_per_second=float(np.median(speeds)) if speeds else None,
        has_test="test" in model.data,
        timm=_timm(model.name, network),
        repository=repository,
        version=_version(),
    )


def _at_temperature(metrics: Mapping[str, Any], temperature: float | None) -> dict[str, Any]:
    """Returns figures without those that change with the temperature, where they are of another than the model's."""
    same = metrics.get("temperature") == temperature
    return {key: value for key, value in metrics.items() if same or key not in _OF_PROBABILITIES}


_OF_PROBABILITIES = ("ece", "maximal_calibration_error", "log_loss", "brier", "mean_confidence", "uncalibrated")


def metrics_of(run: RunDirectory, step: int, weights: str = "ema") -> dict[str, Any] | None:
    """Returns what report/metrics.json holds; None where there is none, or it is not of these weights as they are used.

    `weights` are "ema" or "raw".
    """
    file = run.report / "metrics.json"
    try:
        if kind_of(file) != "file":
            return None
        found = read_json(file)
    except (OSError, UserError):
        return None
    return found if found.get("step") == step and is_of_the_model(found, weights) else None


def is_of_the_model(metrics: Mapping[str, Any], weights: str = "ema") -> bool:
    """Tells whether figures are of a model as it is used, on images that it was not trained on.

    They are not where other weights, an exported file, several views of each image or another size were judged.
    """
    others = {"file", "tta", "size"} & metrics.keys()
    return not others and metrics.get("weights", weights) == weights and metrics.get("split") != "train"


def _validation(run: RunDirectory, step: int) -> dict[str, Any] | None:
    """Returns the figures of the validation split at a step, where they are kept."""
    try:
        found = read_progress(run.checkpoints, step).evaluation
        if found is None and (saved := steps(run.checkpoints)):
            best = read_progress(run.checkpoints, saved[-1]).best
            found = {"split": "validation", **best} if best and best.get("step") == step else None
    except UserError:
        return None
    return found if found and found.get("split") == "validation" else None


def _timm(name: str, network: nn.Module) -> str | None:
    try:
        return architecture_of(name, network).name
    except NotInTimm:
        return None


def _version() -> str | None:
    try:
        return version("jaxnets")
    except PackageNotFoundError:
        return None
