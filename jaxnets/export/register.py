"""An entry of MLflow's model registry for an exported file, loaded again from there before it counts."""

import json
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnets.data.absolute import absolute_store
from jaxnets.engine.onnx_file import require
from jaxnets.errors import UserError
from jaxnets.export.calibration import run_of
from jaxnets.export.check import largest_difference, sample_images
from jaxnets.export.onnx_export import channels_first, onnx_logits
from jaxnets.run.checkpoints import read_progress
from jaxnets.run.directory import RunDirectory
from jaxnets.track.begin import send
from jaxnets.track.destinations import destinations
from jaxnets.track.ledger import Ledger
from jaxnets.track.mlflow_run import client_of, title_of
from jaxnets.track.sender import reason

if TYPE_CHECKING:
    from jaxnets.classifier import Classifier

_FOLDER = "model"  # of the run's files
_TOLERANCE = 1e-5  # of the largest logit, between the file that was written and what comes back


@dataclass(frozen=True, kw_only=True)
class Registration:
    """Where a model is to be registered, known to be possible as far as that shows before the export."""

    run: RunDirectory
    uri: str
    name: str
    alias: str | None


def parse_registration(text: str, model: str) -> Registration:
    """Reads `NAME[@ALIAS]`, for the file of a run.

    Raises:
        UserError: if the name or the model cannot be registered, or no registry is known.
    """
    name, _, alias = text.partition("@")
    if not re.fullmatch(r"[^/:.@\s][^/:.@]*", name) or ("@" in text and not re.fullmatch(r"[A-Za-z][\w-]*", alias)):
        raise UserError(f"--register must be NAME or NAME@ALIAS, without / : . in the name, found {text!r}")
    if alias == "latest" or re.fullmatch(r"v\d+", alias):
        raise UserError(f"--register {text}: MLflow keeps the alias {alias} for itself; choose another")
    require("mlflow", "mlflow")
    run = run_of(model)
    if run is None:
        raise UserError(f"--register is for the model of a run directory, whose curves it leads to, found {model}")
    uri = run.read_config().track.mlflow or absolute_store(os.environ.get("MLFLOW_TRACKING_URI"))
    if not uri:
        raise UserError(
            f"{run.path} was not tracked by MLflow, so that no registry is known: set MLFLOW_TRACKING_URI, or track it "
            f"with python -m jaxnets.track --workdir {run.path} --mlflow URI"
        )
    return Registration(run=run, uri=uri, name=name, alias=alias or None)


def register(content: bytes, classifier: "Classifier", asked: Registration, said: str) -> str:
    """Registers an ONNX file as a new version, and returns what came of it.

    The run that it leads to is brought up to date there first. A version that does not come back as it was given is
    removed again.

    Raises:
        UserError: if it cannot be done.
    """
    try:
        number = _remote_run(asked)
        client = client_of(asked.uri)
        with tempfile.TemporaryDirectory(prefix="jaxnets-") as temporary:
            folder = Path(temporary) / _FOLDER
            _save(content, folder)
            client.log_artifacts(number, str(folder), _FOLDER)
        _make_name(client, asked.name)
        version = client.create_model_version(
            asked.name,
            f"{client.get_run(number).info.artifact_uri}/{_FOLDER}",
            run_id=number,
            tags=_facts(classifier, asked.run),
            description=f"{classifier.name} of {asked.run.path}: {said}",
        ).version
        try:
            place = client.get_model_version_download_uri(asked.name, version)
            difference = _loaded_again(asked, version, place, content, classifier)
        except BaseException:
            with suppress(Exception):
                client.delete_model_version(asked.name, version)
            raise
        if asked.alias:
            client.set_registered_model_alias(asked.name, asked.alias, version)
    except UserError:
        raise
    except Exception as error:  # of MLflow's, and of whatever keeps its files
        raise UserError(
            f"{title_of(asked.uri)}: {reason(error)}; the file is written, and not registered: run the same command "
            f"again"
        ) from error
    alias = f" as {asked.alias}" if asked.alias else ""
    return f"models:/{asked.name}/{version}{alias} in {title_of(asked.uri)}; loaded again, off by {difference:.1e}"


def _remote_run(asked: Registration) -> str:
    """Returns the number of the run's remote run, where it is seen with all that it has."""
    config = asked.run.read_config()
    config = replace(config, track=replace(config.track, mlflow=asked.uri, wandb=None))
    for outcome in send(asked.run, config).values():
        if isinstance(outcome, Exception):
            raise outcome
    number = Ledger(asked.run.tracking).kept(destinations(config.track)[0].place).id
    assert number is not None
    return number


def _save(content: bytes, folder: Path) -> None:
    """Writes MLflow's folder of a model, which says what goes in and what comes out."""
    import mlflow.onnx
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    model = onnx.load_from_string(content)

    def schema(values: Any) -> Any:
        return Schema([
            TensorSpec(
                np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
                tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim),
                value.name,
            )
            for value in values
        ])  # fmt: skip

    signature = ModelSignature(schema(model.graph.input), schema(model.graph.output))
    mlflow.onnx.save_model(model, str(folder), signature=signature, pip_requirements=["onnx", "onnxruntime"])


def _make_name(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _facts(classifier: "Classifier", run: RunDirectory) -> dict[str, str]:
    """Returns the tags of a version: which weights it is, and how good they were found to be."""
    tags = {"model": classifier.name, "classes": str(len(classifier.labels))}
    if classifier.step is None:
        return tags
    tags["step"] = str(classifier.step)
    found: Mapping[str, Any] | None = None
    with suppress(OSError, ValueError):
        found = json.loads((run.report / "metrics.json").read_text(encoding="utf-8"))
    if found is None or found.get("step") != classifier.step:  # of other weights
        found = read_progress(run.checkpoints, classifier.step).evaluation
    if found and "accuracy" in found:
        tags |= {"accuracy": f"{found['accuracy']:.4f}", "accuracy.split": str(found["split"])}
    return tags


def _loaded_again(asked: Registration, version: str, place: str, content: bytes, classifier: "Classifier") -> float:
    """Returns how far the logits of what lies at a version's `place` are off the file's, on real images."""
    import mlflow.artifacts
    import mlflow.pyfunc

    images = sample_images(classifier)
    wanted = onnx_logits(content, classifier)(images)
    with tempfile.TemporaryDirectory(prefix="jaxnets-") as temporary:
        folder = mlflow.artifacts.download_artifacts(artifact_uri=place, dst_path=temporary, tracking_uri=asked.uri)
        loaded = mlflow.pyfunc.load_model(folder)
        kind = loaded.metadata.signature.inputs.inputs[0].type
        given = images if kind == np.uint8 else channels_first(classifier, images)
        difference = largest_difference(wanted, np.asarray(loaded.predict({"image": given})["logits"]))
    if not difference <= _TOLERANCE:
        raise UserError(
            f"models:/{asked.name}/{version} differs from the file by {difference:.1e} of the largest logit when it is "
            f"loaded again, and was removed: please report this with the model's name ({classifier.name})"
        )
    return difference
