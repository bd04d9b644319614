"""A run as a folder for the Hugging Face Hub: card, weights twice, and all that says how they want their images.

    README.md             the model card
    model.json            network, classes, preprocessing, activation, thresholds, calibration
    jaxnets.safetensors   the weights to the bit, which `jaxnets.load` opens with model.json
    model.safetensors     the same in timm's layout, where it has one for networks of this family
    config.json           and timm's configuration, where it has the network itself
    curves.png            the course of the training, where it was drawn
    spread.safetensors    mean and spread of the network's features over training images, where the run keeps it

Nothing of it is of the training images but the names of their classes, how many they were and such means. Nothing names
a path.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from jaxnets.classifier import Classifier
from jaxnets.engine.onnx_file import write_bytes
from jaxnets.errors import UserError
from jaxnets.evaluate.card.write import NAME, card_to_publish
from jaxnets.export.check import is_quantised
from jaxnets.export.timm_layout import CONFIG, WEIGHTS, NotInTimm, architecture, export_safetensors, timm_config
from jaxnets.loading import Weights, load
from jaxnets.models.registry import family_of
from jaxnets.pretrained.portable import pack, read_portable
from jaxnets.run.directory import RunDirectory, open_run
from jaxnets.run.resolve import CARD, PORTABLE, SPREAD, resolve
from jaxnets.run.storage import bucket_errors, kind_of

CURVES = "curves.png"
FILES = (NAME, CARD, PORTABLE, WEIGHTS, CONFIG, CURVES, SPREAD)  # that such a folder may hold


@dataclass(frozen=True)
class HubFolder:
    """The files of a model for the Hub, by name."""

    files: dict[str, bytes]
    title: str  # what the model is called, in a commit's message

    def write(self, folder: Path) -> None:
        """Writes them into an empty folder, or over those of an earlier time.

        Raises:
            UserError: if the folder holds something else, or cannot be written to.
        """
        check_folder(folder)
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        for name, content in self.files.items():
            write_bytes(folder / name, content)


def check_folder(folder: Path) -> None:
    """Refuses a folder that holds what is not of an earlier export of this kind.

    Raises:
        UserError: that names what it holds.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--dry-run {folder} is a file: give a folder, which is made if it is not there")
    held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in held if name not in FILES]
    if others or (held and PORTABLE not in held):
        shown = ", ".join((others or held)[:3])
        raise UserError(
            f"--dry-run {folder} holds other things ({shown}), which would lie beside the model: give a folder of "
            "its own"
        )


def open_pushed(model: str) -> RunDirectory:
    """Returns the run whose model goes to the Hub.

    Raises:
        UserError: if it is none: what came from elsewhere has a card there.
    """
    source = resolve(model)
    if not source.is_run:
        raise UserError(
            f"--push-to is for a run directory, whose card says what it was trained on, and {model} is none: give the "
            "--workdir of a training run"
        )
    return open_run(source.location)


def hub_folder(
    model: str,
    repository: str,
    *,
    checkpoint: str | int = "best",
    weights: Weights = "ema",
) -> tuple[HubFolder, Classifier]:
    """Returns a run's files for the Hub, and the model that they are of.

    Raises:
        UserError: if it is no run, or cannot be read.
    """
    run = open_pushed(model)
    classifier = load(model, checkpoint, weights, engine="jax")
    step = classifier.step
    assert step is not None  # a run's
    card = run.read_model().as_answered(step, weights)
    files = {
        NAME: card_to_publish(run, card, step, repository, weights).encode("utf-8", "backslashreplace"),
        CARD: (json.dumps(card.to_json(), indent=2) + "\n").encode(),
        PORTABLE: pack(classifier.variables),
    }
    try:
        found = architecture(classifier)
    except NotInTimm:
        found = None
    if not is_quantised(classifier) and any(layout.name == "timm" for layout in family_of(classifier.model).layouts):
        files[WEIGHTS] = export_safetensors(classifier, found)
    if found is not None:
        files[CONFIG] = timm_config(classifier, found, WEIGHTS)
    with bucket_errors(run.path):
        if classifier.spread is not None:
            files[SPREAD] = run.spread.read_bytes()
        if kind_of(run.path / CURVES) == "file":
            files[CURVES] = (run.path / CURVES).read_bytes()
    return HubFolder(files, f"{card.name}, step {step}"), classifier


def check_opened(folder: Path, classifier: Classifier) -> None:
    """Makes sure that what was written opens as what it was written from, to the bit.

    Raises:
        UserError: if it does not.
    """
    found = read_portable(folder / PORTABLE)
    same = jax.tree.map(lambda a, b: np.array_equal(a, b) and a.dtype == b.dtype, found.variables, classifier.variables)
    kept = (found.card.class_names, found.card.temperature, found.card.refusal)
    if not jax.tree.all(same) or kept != (classifier.labels, classifier.temperature, classifier.refusal):
        raise UserError(f"{folder} does not hold what was written to it: is the disk full or damaged?")
