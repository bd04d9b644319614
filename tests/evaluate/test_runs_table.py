"""A table over runs."""

import csv
import io
import json

import pytest

from jaxnets.errors import UserError
from jaxnets.evaluate import runs_table
from jaxnets.evaluate.runs_table import table_of
from jaxnets.run.directory import ModelCard, RunDirectory
from tests.evaluate.invented import by_brightness
from tests.train.runs import short

METRICS = {
    "model": "resnet8_cifar",
    "step": 4,
    "split": "test",
    "source": "digits",
    "count": 360,
    "accuracy": 0.9,
    "macro_f1": 0.88,
    "log_loss": 0.4,
    "ece": 0.03,
    "interval": {"low": 0.86, "high": 0.93},
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Makes runs whose best checkpoint is step 4."""
    monkeypatch.setattr(runs_table, "choose", lambda checkpoints, wanted: 4)

    def make(name: str, report: dict | None = None) -> str:
        made = RunDirectory(tmp_path / name)
        made.create()
        preprocess = by_brightness(8, 1).preprocess
        made.write(
            short(), ModelCard(name="resnet8_cifar", fields={}, class_names=("a", "b"), preprocess=preprocess, data={})
        )
        if report is not None:
            (made.path / "report").mkdir()
            (made.path / "report" / "metrics.json").write_text(json.dumps({**METRICS, **report}))
        return str(made.path)

    return make


def _never(run):
    raise AssertionError(f"{run.path} was evaluated")


def test_reports_that_are_up_to_date_are_read(run):
    found = table_of([run("a", {}), run("b", {"accuracy": 0.95, "log_loss": 0.5})], "test", _never)
    assert [row.figures["accuracy"] for row in found.rows] == [0.9, 0.95]
    assert (found.best("accuracy"), found.best("log_loss"), found.best("macro_f1")) == ({1}, {0}, {0, 1})
    assert found.rows[0].interval == (0.86, 0.93)
    assert found.rows[0].image_size == "8"
    assert "top5" not in [key for key, _, _ in found.columns]


@pytest.mark.parametrize(
    "report",
    [None, {"step": 3}, {"split": "validation"}, {"tta": "mirror"}, {"source": "csv:other"}, {"class_map": "imagenet"}],
    ids=["none", "older", "another split", "other views", "other data", "a class map"],
)
def test_runs_without_such_a_report_are_evaluated(run, report):
    found = table_of([run("a", report)], "test", lambda run: {**METRICS, "accuracy": 0.5})
    assert found.rows[0].figures["accuracy"] == 0.5


def test_all_are_evaluated_where_that_is_asked_for(run):
    found = table_of([run("a", {})], "test", lambda run: {**METRICS, "accuracy": 0.5}, anew=True)
    assert found.rows[0].figures["accuracy"] == 0.5


def test_what_is_no_run_is_passed_over_and_said(run, tmp_path):
    (tmp_path / "notes.txt").write_text("")
    found = table_of([str(tmp_path / "notes.txt"), run("a", {}), str(tmp_path / "none")], "test", _never)
    assert len(found.rows) == 1
    assert len(found.notes) == 2
    with pytest.raises(UserError, match=r"--table found no run that can be evaluated .*: give run directories"):
        table_of([str(tmp_path / "notes.txt")], "test", _never)


def test_runs_on_different_images_are_not_ranked(run):
    found = table_of([run("a", {}), run("b", {"count": 99, "accuracy": 0.99})], "test", _never)
    assert found.best("accuracy") == set()
    assert "cannot be compared" in found.notes[-1]


def test_the_csv_has_a_line_for_each_run(run):
    found = table_of([run("a, b", {}), run("c", {"top5": 1.0})], "test", _never)
    lines = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [line["run"].rpartition("/")[2] for line in lines] == ["a, b", "c"]
    assert (lines[0]["accuracy"], lines[0]["top5"], lines[1]["top5"], lines[0]["accuracy_low"]) == (
        "0.9",
        "",
        "1.0",
        "0.86",
    )
