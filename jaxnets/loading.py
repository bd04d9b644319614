"""What a model's name means, opened: `jaxnets.load("runs/x")`."""

import logging
from pathlib import Path
from typing import Literal

from flax import linen as nn

from jaxnets.classifier import Classifier
from jaxnets.engine.runtime import EngineName
from jaxnets.errors import UserError
from jaxnets.models.family import Variables
from jaxnets.pretrained.load import open_pretrained
from jaxnets.run.build import build_model
from jaxnets.run.checkpoints import choose, read_variables, steps
from jaxnets.run.directory import ModelCard, RunDirectory, open_run
from jaxnets.run.resolve import ModelSource, resolve
from jaxnets.run.storage import Place
from jaxnets.trust.outliers import Spread
from jaxnets.trust.temperature import at_temperature

_log = logging.getLogger(__name__)

Weights = Literal["ema", "raw"]


def load(
    path: str | Place, checkpoint: str | int = "best", weights: Weights = "ema", engine: EngineName = "auto"
) -> Classifier:
    """Opens a run directory, or a model whose weights are known by name, on whatever hardware is here.

    Args:
        path: the run's work directory; it may be read-only or in a bucket (gs://), and needs neither the config file
            nor the data. Or whatever else names a model (see `jaxnets.run.resolve`): a name of `list_models()`
            ("efficientnet_lite0"), a file of weights ("resnet50@weights.pth" where it does not say of which model), a
            folder with the Hub's files, or `hf:OWNER/REPO` on the Hub.
        checkpoint: "best" on the validation split (the newest where the run holds none out), "newest", or a step.
        engine: "jax"; "onnx", which is quicker on a CPU and needs the extra `export`; or "auto", which takes ONNX
            Runtime where it can. They agree to 1e-4.
        weights: "ema" for the averaged weights ("raw" ones where there is no average), or "raw".

    A run in float64 switches JAX to 64 bits for the whole process.

    Raises:
        UserError: if there is no such run or checkpoint, or it cannot be read.
    """
    if weights not in ("ema", "raw"):
        raise UserError(f"weights must be ema or raw, found {weights!r}")
    source = resolve(path)
    if not source.is_run:
        if checkpoint != "best":
            raise UserError(f"{path} is no run and has no checkpoint {checkpoint!r}: leave it out")
        return _load_pretrained(source, weights, engine)
    run = open_run(source.location)
    card = run.read_model()
    step, variables = _read(run, checkpoint, weights)
    answered = card.as_answered(step, weights)
    if card.is_fitted and not answered.is_fitted:
        on = card.fitted_on
        assert on is not None  # what was fitted to nothing counts for all
        _log.warning(
            "%s: its temperature and bounds were fitted to step %d (%s weights) and do not count for step %d (%s): it "
            "answers without them; python -m jaxnets.evaluate --calibrate fits them anew",
            path, on.step, on.weights, step, weights,
        )  # fmt: skip
    folder = run.path / "engines" if isinstance(run.path, Path) else None
    spread = run.read_spread(answered)
    return _classifier(answered, build_model(card), variables, step, spread, engine, folder)


def _classifier(
    card: ModelCard,
    model: nn.Module,
    variables: Variables,
    step: int | None,
    spread: Spread | None,
    engine: EngineName,
    folder: Path | None,
) -> Classifier:
    """Returns what model.json describes, with its weights."""
    return Classifier(
        name=card.name,
        model=model,
        variables=variables,
        preprocess=card.preprocess,
        labels=card.class_names,
        step=step,
        matmul_precision=card.matmul_precision,
        activation=card.activation,
        several_labels=card.several_labels,
        thresholds=at_temperature(card.thresholds, card.temperature),
        temperature=card.temperature,
        refusal=card.refusal,
        spread=spread,
        engine_name=engine,
        engine_folder=folder,
    )


def _load_pretrained(source: ModelSource, weights: Weights, engine: EngineName) -> Classifier:
    found = open_pretrained(source.location if source.kind == "known" else None, source, weights)
    if found.card is not None:
        return _classifier(found.card, found.model, found.variables, None, found.spread, engine, None)
    if found.preprocess is None:
        raise UserError(
            f"nothing says how {source.location} wants its images: use jaxnets.load_pretrained, which returns its "
            "network"
        )
    if found.activation is None:
        raise UserError(
            f"{source.location} is a regression (problem_type in its config.json), whose outputs are no probabilities: "
            "use jaxnets.load_pretrained, which returns its network"
        )
    return Classifier(
        name=found.name,
        model=found.model,
        variables=found.variables,
        preprocess=found.preprocess,
        labels=found.labels,
        step=None,
        activation=found.activation,
        several_labels=found.several_labels,
        thresholds=found.thresholds,
        temperature=found.temperature,
        refusal=found.refusal,
        engine_name=engine,
    )


def _read(run: RunDirectory, checkpoint: str | int, weights: str) -> tuple[int, Variables]:
    step = choose(run.checkpoints, checkpoint)
    try:
        return step, read_variables(run.checkpoints, step, weights)
    except UserError as error:
        others = [other for other in steps(run.checkpoints) if other != step]
        if checkpoint not in ("best", "newest") or not others:
            raise
        _log.warning("%s; using step %d instead", error, others[-1])
        return others[-1], read_variables(run.checkpoints, others[-1], weights)
