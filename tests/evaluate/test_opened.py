"""A model that no run here has trained is judged as a run is."""

from pathlib import Path

import numpy as np
import pytest

from jaxnets import evaluate
from jaxnets.errors import UserError
from jaxnets.evaluate import opened
from jaxnets.run.directory import RunDirectory
from tests import tiny
from tests.data.sources.images import tree


@pytest.fixture
def model(monkeypatch):
    """Returns a classifier of two classes that the name `vit_tiny_patch16_224` opens."""
    found = tiny.classifier("vit", classes=2)
    monkeypatch.setattr(opened, "load", lambda model, checkpoint, weights: found)
    return found


def test_its_figures_are_those_of_its_answers(model, tmp_path):
    folder = tree(tmp_path / "new", *(f"{label}*6" for label in model.labels))
    said = evaluate(model="vit_tiny_patch16_224", source=f"folder:{folder}", out=tmp_path / "report")
    correct = [
        model.predict(sorted((Path(folder) / label).iterdir())).argmax(1) == number
        for number, label in enumerate(model.labels)
    ]
    assert said["count"] == 12
    assert said["correct"] == np.concatenate(correct).sum()
    assert said["step"] is None
    assert (tmp_path / "report" / "index.html").exists()
    assert not (tmp_path / "report" / "README.md").exists()  # a model card is of what was trained here


def test_it_is_compared_with_itself_as_with_a_run(model, tmp_path):
    folder = tree(tmp_path / "new", *(f"{label}*3" for label in model.labels))
    said = evaluate(model="vit_tiny_patch16_224", source=f"folder:{folder}", against="vit_tiny_patch16_224", seed=1)
    (comparison,) = said["against"]
    assert comparison["metrics"]["accuracy"]["difference"]["value"] == 0


def test_a_run_directory_is_the_run(tmp_path):
    for name in ("config.json", "model.json"):
        (tmp_path / name).write_text("{}")
    assert type(opened.open_model(str(tmp_path), "digits")) is RunDirectory
    with pytest.raises(UserError, match="is a run: give it as --workdir"):
        evaluate(model=tmp_path, source="digits")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "resnet50"}, "say with --source on which images"),
        ({"model": "a.onnx", "source": "digits"}, "give that as --workdir"),
        ({"model": "resnet50", "source": "digits", "calibrate": True}, "--calibrate is kept in a run"),
        ({"model": "resnet50", "source": "digits", "thresholds": True}, "--thresholds is kept in a run"),
        ({"model": "resnot50", "source": "digits"}, "there is no model 'resnot50'"),
    ],
)
def test_what_needs_a_run_is_refused(given, said):
    with pytest.raises(UserError, match=said):
        evaluate(**given)
