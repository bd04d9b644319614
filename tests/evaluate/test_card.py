"""The model card: valid for the Hub, true to the metrics, and silent on nothing that is not known."""

import json
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from jaxnets.evaluate.card.facts import Facts, gather
from jaxnets.evaluate.card.public import public_settings, public_source
from jaxnets.evaluate.card.text import UNKNOWN, plain
from jaxnets.evaluate.card.write import BESIDE, NAME, card, card_to_publish, is_untouched, write_card
from jaxnets.run.directory import open_run
from tests.export.runs import run_on_digits
from tests.train.runs import short

CLASSES = tuple(map(str, range(10)))
CONFUSION = [[10 if i == j else 3 if (i, j) == (4, 9) else 0 for j in range(10)] for i in range(10)]
METRICS = {
    "format": 2,
    "step": 1,
    "split": "test",
    "source": "digits",
    "count": 103,
    "accuracy": 100 / 103,
    "interval": {"confidence": 0.95, "method": "wilson", "low": 0.918, "high": 0.99},
    "macro_f1": 0.9712,
    "balanced_accuracy": 0.9769,
    "roc_auc": None,
    "ece": 0.0213,
    "brier": 0.05,
    "per_class": {
        name: {"support": sum(row), "precision": 1.0, "recall": row[i] / sum(row), "f1": 0.9}
        for i, (name, row) in enumerate(zip(CLASSES, CONFUSION, strict=True))
    },
    "confusion": CONFUSION,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(run_on_digits(tmp_path_factory.mktemp("home-of-jane") / "run"))


def test_the_hub_reads_the_metadata_and_the_results_are_those_of_the_evaluation(run):
    parsed = ModelCard(card(gather(run, 1, METRICS, "jane/digits")))
    data = parsed.data
    assert (data.pipeline_tag, data.library_name) == ("image-classification", "jaxnets")
    found = {(result.metric_type, result.metric_name): result.metric_value for result in data.eval_results}
    assert found[("accuracy", "Accuracy")] == METRICS["accuracy"]
    assert found[("f1", "F1 (macro)")] == METRICS["macro_f1"]
    assert ("roc_auc", "ROC-AUC (macro)") not in found  # it is undefined
    (result, *_) = data.eval_results
    assert (result.dataset_split, result.dataset_name, result.task_type) == ("test", "digits", "image-classification")
    assert data.license is None
    again = ModelCard(str(parsed))
    assert again.data.to_dict() == data.to_dict()


def test_the_card_says_figures_with_their_interval_calibration_and_worst_confusions(run):
    text = card(gather(run, 1, METRICS, "jane/digits"))
    assert "97.09% (95% interval 91.80% to 99.00%, Wilson)" in text
    assert "4 for 9 (3 of 13)" in text
    assert "Expected calibration error 2.13%" in text
    assert 'jaxnets.load("hf:jane/digits")' in text
    assert "| 4 | 13 | 100.00% | 76.92% | 90.00% |" in text


def test_what_is_not_known_is_said_to_be_unknown(run):
    text = card(gather(run, 1, None))
    assert text.count(UNKNOWN) >= 8
    assert "model-index" not in text
    assert ModelCard(text).data.eval_results is None
    assert f"**License**, of the weights, and of the images that they were trained on: {UNKNOWN}" in text


def test_a_card_that_somebody_has_written_in_is_left_alone_and_is_the_one_that_is_published(run, tmp_path):
    facts = gather(run, 1, METRICS)
    assert write_card(tmp_path, facts) == (tmp_path / NAME, False)
    assert write_card(tmp_path, replace(facts, step=7)) == (tmp_path / NAME, False)
    own = (tmp_path / NAME).read_text().replace(f"{UNKNOWN}", "MIT", 1)
    assert not is_untouched(own)
    (tmp_path / NAME).write_text(own)
    assert write_card(tmp_path, facts) == (tmp_path / BESIDE, True)
    assert (tmp_path / NAME).read_text() == own
    run.report.mkdir()
    (run.report / NAME).write_text(own)
    assert card_to_publish(run, run.read_model(), 1, "jane/digits") == own.replace("OWNER/REPO", "jane/digits")
    (run.report / NAME).unlink()


def test_metrics_of_another_checkpoint_are_not_given_to_this_one(run):
    run.report.mkdir(exist_ok=True)
    (run.report / "metrics.json").write_text(json.dumps(METRICS | {"step": 2}))
    assert "97.09%" not in card_to_publish(run, run.read_model(), 1, "jane/digits")
    (run.report / "metrics.json").write_text(json.dumps(METRICS))
    assert "97.09%" in card_to_publish(run, run.read_model(), 1, "jane/digits")
    (run.report / "metrics.json").unlink()


@pytest.mark.parametrize(
    ("source", "name", "hub_id"),
    [
        ("digits", "digits", None),
        ("folder:/home/jane/cats-dogs/", "cats-dogs", None),
        ("folder:gs://secret-bucket/photos", "photos", None),
        ("folder:~/photos", "photos", None),
        ("csv:C:\\Users\\jane\\train.csv", "train.csv", None),
        ("tar:/home/jane/imagenet/train-*.tar", "train-*.tar", None),
        ("hf:uoft-cs/cifar10", "uoft-cs/cifar10", "uoft-cs/cifar10"),
        ("hf:uoft-cs/cifar10:plain@0b2714987fa478483af9968de7c934580d0bb9a2", "uoft-cs/cifar10", "uoft-cs/cifar10"),
        ("hf:/home/jane/saved", "saved", None),
        ("tfds:cifar10", "cifar10", None),
        ("prepared:/home/jane/x/", "x", None),
        ("folder:..", "unnamed", None),
    ],
)
def test_a_source_is_told_without_where_it_lies(source, name, hub_id):
    found = public_source(source)
    assert (found.name, found.hub_id) == (name, hub_id)


def test_no_setting_tells_a_path():
    config = short(
        data={"source": "csv:/home/jane/a.csv", "root": "/home/jane/photos", "directory": "/home/jane/cache"},
        model={"name": "resnet18", "pretrained": "/home/jane/weights/resnet18.pth"},
        distill={"teacher": "big=resnet50@/home/jane/teacher.pth"},
    )
    told = public_settings(config)
    assert "jane" not in repr(told)
    assert told["model.pretrained"] == "resnet18.pth"
    assert told["distill.teacher"] == "teacher.pth"
    hub = short(model={"name": "resnet18", "pretrained": "hf:timm/resnet18.a1_in1k"})
    assert public_settings(hub)["model.pretrained"] == "hf:timm/resnet18.a1_in1k"


def test_the_model_that_it_was_fine_tuned_from_is_the_base_model(run):
    facts = gather(run, 1, None)
    config = short(model={"name": "resnet18", "pretrained": "hf:timm/resnet18.a1_in1k"})
    assert ModelCard(card(replace(facts, config=config))).data.base_model == "timm/resnet18.a1_in1k"


@pytest.mark.parametrize(
    "name", ["a|b", "<script>alert(1)</script>", "two\nlines", "*bold*", "[x](http://y)", "`code`"]
)
def test_a_class_of_any_name_is_shown_as_it_is_called(run, name):
    shown = plain(name)
    assert not set("<>\n") & set(shown)
    facts: Facts = gather(run, 1, METRICS)
    per_class = {name: METRICS["per_class"]["0"], **{key: METRICS["per_class"][key] for key in CLASSES[1:]}}
    names = (name, *CLASSES[1:])
    text = card(
        replace(facts, metrics={**METRICS, "per_class": per_class}, model=replace(facts.model, class_names=names))
    )
    assert f"| {shown} | 10 |" in text
    assert ModelCard(text).data.eval_results
