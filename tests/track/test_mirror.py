"""A remote run is kept like the run directory: each row once, whatever a session before has sent."""

import json

import pytest

from jaxnets.errors import UserError
from jaxnets.track.ledger import Ledger
from jaxnets.track.mirror import row_of_report
from tests.track.made import Service, evaluation, train, write_rows


def test_each_row_is_sent_once_however_often_and_by_whomever(tmp_path):
    service, rows = Service(), [train(2), train(4), evaluation(4), train(6)]
    write_rows(tmp_path, *rows[:2])
    first = service.mirror(tmp_path)
    first.sync()
    first.sync()
    write_rows(tmp_path, *rows[2:])
    first.sync()
    service.mirror(tmp_path).sync()  # of another session
    assert service.rows == rows
    assert Ledger(tmp_path / "tracking.json").kept("made").sent == 4


def test_only_the_lines_that_are_asked_for_are_sent(tmp_path):
    service, rows = Service(), [train(step) for step in range(1, 251)]  # more than are sent at once
    write_rows(tmp_path, *rows)
    mirror = service.mirror(tmp_path)
    mirror.sync(0)
    assert service.rows == []
    mirror.sync(101)
    assert service.rows == rows[:101]
    assert mirror.lacking(150) == (49, 150)
    mirror.sync(250)
    assert service.rows == rows


def test_a_row_of_test_may_be_of_an_earlier_step(tmp_path):
    service, rows = Service(), [evaluation(0), train(4), evaluation(4), evaluation(2, "test")]
    write_rows(tmp_path, *rows)
    service.mirror(tmp_path).sync()
    service.mirror(tmp_path).sync()
    assert service.rows == rows


def test_rows_that_come_again_after_they_were_sent_are_not_sent_twice(tmp_path):
    service = Service()
    write_rows(tmp_path, train(2), train(4))
    service.mirror(tmp_path).sync()
    (tmp_path / "metrics.jsonl").unlink()  # the newest checkpoint was damaged, and the run goes on from before
    write_rows(tmp_path, train(2), {**train(4), "time": 2000.0}, train(6))
    service.mirror(tmp_path).sync()
    assert [row["step"] for row in service.rows] == [2, 4, 6]


def test_what_fails_halfway_is_sent_later_from_where_it_failed(tmp_path):
    service, rows = Service(), [train(step) for step in range(1, 251)]
    write_rows(tmp_path, *rows)
    mirror = service.mirror(tmp_path)
    mirror.sync(100)
    service.fails = ConnectionError("gone")
    with pytest.raises(ConnectionError):
        mirror.sync()
    service.fails = None
    mirror.sync()
    assert service.rows == rows


def test_a_run_that_was_removed_there_is_begun_anew_with_all_rows(tmp_path):
    service, rows = Service(), [train(2), evaluation(2)]
    write_rows(tmp_path, *rows)
    service.mirror(tmp_path).sync()
    service.rows_of = {"of another": []}
    service.mirror(tmp_path).sync()
    assert service.rows_of == {"of another": [], "run 1": rows}


def test_images_are_sent_when_they_are_new_and_curves_at_the_end(tmp_path):
    service = Service()
    write_rows(tmp_path, train(8))
    (tmp_path / "curves.png").write_bytes(b"one")
    (tmp_path / "first_batch.png").write_bytes(b"two")
    mirror = service.mirror(tmp_path)
    mirror.sync(final=False)
    assert service.images == [("first_batch", 1)]
    mirror.sync()
    mirror.sync()
    assert service.images == [("first_batch", 1), ("curves", 8)]
    (tmp_path / "curves.png").write_bytes(b"another")
    service.mirror(tmp_path).sync()
    assert service.images[2:] == [("curves", 8)]


def test_a_line_that_is_being_written_waits(tmp_path):
    service = Service()
    write_rows(tmp_path, train(2))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, ')
    mirror = service.mirror(tmp_path)
    mirror.sync()
    assert service.rows == [train(2)]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('"epoch": 0.4, "time": 1004.0, "train/loss": 1.0}\n')
    mirror.sync()
    assert service.rows == [train(2), train(4)]


def test_a_report_is_sent_once_until_it_changes_with_its_numbers_as_a_row(tmp_path):
    service, folder = Service(), tmp_path / "report"
    folder.mkdir()
    metrics = {"format": 1, "step": 40, "split": "test", "accuracy": 0.9, "notes": [], "interval": {"low": 0.8}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    for name in ("index.html", "confusion.png", "predictions.csv"):
        (folder / name).write_bytes(name.encode())
    service.mirror(tmp_path).report(folder)
    service.mirror(tmp_path).report(folder)
    assert service.rows == [{"step": 40, "test/accuracy": 0.9}]
    assert [sorted(files) for files in service.reports] == [["confusion.png", "index.html", "metrics.json"]]
    (folder / "index.html").write_bytes(b"changed")
    service.mirror(tmp_path).report(folder)
    assert (len(service.rows), len(service.reports)) == (1, 2)
    (folder / "metrics.json").write_text(json.dumps({**metrics, "accuracy": 0.8}))
    service.mirror(tmp_path).report(folder, row=False)  # of an evaluation that is not the run's own
    assert (len(service.rows), len(service.reports)) == (1, 3)
    assert row_of_report({**metrics, "step": None}) is None


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"tags": {}, "places": {"x": {"no": 1}}}', '{"tags": {}, "places": 3}']
)
def test_a_damaged_ledger_is_refused_rather_than_a_second_run_begun(tmp_path, content):
    (tmp_path / "tracking.json").write_text(content)
    with pytest.raises(UserError, match=r"tracking\.json.*restore it"):
        Ledger(tmp_path / "tracking.json")
