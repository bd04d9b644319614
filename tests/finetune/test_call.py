import json

import pytest

import jaxnets
from jaxnets.errors import UserError
from jaxnets.finetune.call import _by_full_name, _source
from tests.train.runs import SMALL


@pytest.fixture
def options(weights):
    return {"model": SMALL, "pretrained": weights, "batch_size": 16, "quiet": True}


def test_a_folder_is_fine_tuned_and_its_classifier_answers(images, tmp_path, options):
    run = jaxnets.finetune(images, workdir=tmp_path / "run", **options)
    assert (run.finished, run.step) == (True, 0)
    report = jaxnets.evaluate(tmp_path / "run")
    assert run.accuracy == report["accuracy"] == run.test["accuracy"]
    assert 0 < run.validation_accuracy <= 1
    assert run.classifier.predict(images / "a" / "0.png").shape == (1, 3)
    assert f"test accuracy {run.accuracy:.2%}" in repr(run)
    again = jaxnets.finetune(f"folder:{images}", workdir=tmp_path / "run", **options)
    assert again.test == run.test


def test_a_path_means_the_source_that_it_is(images, tmp_path):
    table = tmp_path / "labels.CSV"
    table.write_text("file,label\n")
    assert _source(images) == f"folder:{images}"
    assert _source(str(table)) == f"csv:{table}"
    assert _source("tfds:mnist") == "tfds:mnist"
    for missing in (images / "none", "photos/", "labels.csv"):
        with pytest.raises(UserError, match="there is no folder or table"):
            _source(missing)


def test_keywords_are_keys_by_the_end_of_their_names():
    found = _by_full_name({"minutes": 3, "data__validation": 0.1, "layer_decay": 0.7, "model": "resnet18", "epochs": 2})
    assert found == {
        "finetune.minutes": 3,
        "data.validation": 0.1,
        "optimizer.layer_decay": 0.7,
        "model.name": "resnet18",
        "epochs": 2,
    }
    with pytest.raises(
        UserError, match=r"minuts is not a key of the config \(did you mean config.finetune.minutes\?\)"
    ):
        _by_full_name({"minuts": 3})
    with pytest.raises(
        UserError, match=r"name may be model.name, .*loss.name.*: write .* in full, model__name for instance"
    ):
        _by_full_name({"name": "x"})


def test_an_ordinary_training_is_left_to_train(images, tmp_path, options):
    with pytest.raises(UserError, match=r"use jaxnets\.train"):
        jaxnets.finetune(images, tmp_path / "run", method=None, **options)
    with pytest.raises(UserError, match=r"use jaxnets\.finetune"):
        jaxnets.train("finetune", tmp_path / "run")


def test_folds_are_fitted_on_features_that_are_computed_once(images, config, capsys, monkeypatch, weights):
    from jaxnets.finetune.__main__ import main

    arguments = [f"--config.data.source=folder:{images}", f"--config.model.name={SMALL}"]
    arguments += [f"--config.model.pretrained={weights}", "--folds", "3", "--seeds", "2", "--json"]
    monkeypatch.setattr("sys.argv", ["finetune", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["folds"]) == 6
    assert sum(fold["figures"]["count"] for fold in found["folds"]) == 2 * 60
    assert len(found["names"]) == len(found["fold_of"]["0"]) == 60
    assert found["fold_of"]["0"] != found["fold_of"]["1"]
    mean, spread = found["figures"]["accuracy"]
    assert mean > 0.8
    assert spread >= 0


def test_a_file_of_weights_is_noted_with_its_whole_path(images, tmp_path, options, monkeypatch):
    (tmp_path / "weights.csv").write_text("a,1\nb,2\nc,1\n")
    monkeypatch.chdir(tmp_path)
    jaxnets.finetune(images, workdir=tmp_path / "run", class_weights="weights.csv", **options)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["loss"]["class_weights"] == str(tmp_path / "weights.csv")
