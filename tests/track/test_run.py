"""A run with trackers: it is the same run, whatever they do, and they show one run of it over all its sessions."""

import json
import logging

import pytest

from jaxnets.errors import UserError
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from tests.track.made import Service
from tests.train.runs import assert_same_run, short

TRACKED = {"mlflow": "http://made", "name": "one"}


@pytest.fixture
def trackers(monkeypatch):
    """A tracker that works, and one that fails in whatever it is asked."""
    works, fails = Service(), Service()
    fails.fails = SystemExit("no")

    def destinations(track):
        return [works.destination("good"), fails.destination("bad")] if track.mlflow else []

    for module in ("jaxnets.track.begin", "jaxnets.train.loop"):
        monkeypatch.setattr(f"{module}.destinations", destinations)
    return works


def test_two_sessions_are_one_run_there_with_the_rows_of_metrics_jsonl(tmp_path, one_device, trackers, caplog):
    with caplog.at_level(logging.WARNING, "jaxnets"):
        for steps in (4, 6):  # and the second is not the first one's config
            outcome = train(short(steps=steps, track=TRACKED), tmp_path / "a", Display(), one_device)
            assert outcome.finished
    rows = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 4, 4, 4, 6, 6, 6]
    assert trackers.rows == rows
    assert trackers.ends == [("finished", "")] * 2
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("the bad")]
    assert len(said) == 4  # in each session that it fails, and what was not sent
    assert "7 of 7 rows were not sent (no)" in said[-1]
    for steps in (4, 6):
        train(short(steps=steps), tmp_path / "b", Display(), one_device)
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_what_diverges_shows_as_failed_with_its_reason_and_without_rows_that_come_again(
    tmp_path, one_device, trackers, monkeypatch
):
    def fail(*_):
        raise UserError("the loss of step 5 is nan: lower it\nor not")

    train(short(steps=4, track=TRACKED), tmp_path, Display(), one_device)
    monkeypatch.setattr("jaxnets.train.session.Session._pause", fail)
    with pytest.raises(UserError):
        train(short(steps=8, track=TRACKED), tmp_path, Display(), one_device)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] > 4
    assert [row["step"] for row in trackers.rows] == [3, 4, 4, 4]
    assert trackers.ends[-1] == ("failed", "the loss of step 5 is nan: lower it")
