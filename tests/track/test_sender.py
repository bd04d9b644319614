"""The thread that sends: it waits for checkpoints, and nothing that a tracker does reaches the run."""

import logging
import threading
import time

import pytest

from jaxnets import exit
from jaxnets.track import sender as module
from jaxnets.track.sender import Sender, reason
from tests.track.made import Service, evaluation, train, write_rows


@pytest.fixture
def started(tmp_path, monkeypatch):
    """A service, a sender to it that has begun, what it says, and the newest step that is saved."""
    monkeypatch.setattr(module, "_LOOK", 0.01)
    service, saved, said = Service(), [-1], []

    def begin() -> Sender:
        sender = Sender(service.mirror(tmp_path), lambda: saved[0], said.append, "python -m jaxnets.track --workdir D")
        sender.begin()
        return sender

    return service, begin, saved, said


def wait_until(true) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def end(sender: Sender, lines: int | None, ended="finished", seconds: float = 10) -> None:
    sender.close(lines, ended, "", time.monotonic() + seconds)


def test_rows_are_sent_once_a_checkpoint_covers_them_and_not_before(tmp_path, started):
    service, begin, saved, said = started
    sender = begin()
    wait_until(lambda: service.opened)  # at the beginning, so that it is seen that the run is on
    write_rows(tmp_path, train(2), evaluation(2), train(3))
    sender.covered(2, 2)
    time.sleep(0.1)
    assert service.rows == []
    saved[0] = 2
    wait_until(lambda: len(service.rows) == 2)
    end(sender, None, "failed")  # the row of step 3 would come again
    assert service.rows == [train(2), evaluation(2)]
    assert service.ends == [("failed", "")]
    assert said == ["the made: http://made/run 0"]


def test_what_a_killed_session_wrote_after_its_checkpoint_is_in_no_tracker_with_other_values(tmp_path, started):
    service, begin, saved, _ = started
    sender, saved[0] = begin(), 2
    write_rows(tmp_path, train(2), train(4, loss=7.0))
    sender.covered(1, 2)
    wait_until(lambda: service.rows == [train(2)])
    end(sender, None, "failed")  # as far as the service knows of what a killed one did
    (tmp_path / "metrics.jsonl").unlink()
    write_rows(tmp_path, train(2), train(4, loss=0.5), train(6))
    end(begin(), 3)
    assert service.rows == [train(2), train(4, loss=0.5), train(6)]


@pytest.mark.parametrize("error", [ConnectionError("no"), SystemExit(3), KeyboardInterrupt()])
def test_a_failure_is_said_once_and_what_it_kept_back_is_sent_at_the_end(tmp_path, started, caplog, error, monkeypatch):
    service, begin, saved, _ = started
    monkeypatch.setattr(module, "_AGAIN", 0.01)
    service.fails, saved[0] = error, 9
    with caplog.at_level(logging.WARNING, "jaxnets"):
        sender = begin()
        write_rows(tmp_path, train(2), train(4))
        sender.covered(2, 4)
        time.sleep(0.1)
        service.fails = None
        end(sender, 2)
    assert service.rows == [train(2), train(4)]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("the made: ")
    assert "training goes on" in said
    assert said.endswith("later by python -m jaxnets.track --workdir D")


def test_what_is_not_sent_at_the_end_is_counted(tmp_path, started, caplog):
    service, begin, _, _ = started
    write_rows(tmp_path, train(2), train(4), evaluation(4))
    service.mirror(tmp_path).sync(1)
    service.fails = OSError("[Errno 111] Connection refused")
    with caplog.at_level(logging.WARNING, "jaxnets"):
        end(begin(), 3)
    assert caplog.records[-1].getMessage() == (
        "the made: 2 of 3 rows were not sent (the connection is refused); nothing is lost, "
        "python -m jaxnets.track --workdir D sends them"
    )


def test_a_tracker_that_hangs_holds_up_no_row_and_the_end_for_a_while_alone(tmp_path, started, caplog, monkeypatch):
    service, begin, saved, _ = started
    at_once = []
    monkeypatch.setattr(exit, "end_at_once", lambda: at_once.append(True))
    service.goes_on.clear()
    sender, saved[0] = begin(), 2
    began = time.monotonic()
    for step in range(1, 201):
        write_rows(tmp_path, train(step))
        sender.covered(step, step)
    assert time.monotonic() - began < 1
    with caplog.at_level(logging.WARNING, "jaxnets"):
        end(sender, 200, seconds=0.1)
    assert time.monotonic() - began < 2
    assert at_once == [True]
    assert "200 of 200 rows were not sent (it is slow, or hangs)" in caplog.text
    service.goes_on.set()  # too late: nobody may send now, for another session may
    wait_until(lambda: not any(t.name == "sender: made" and t.is_alive() for t in threading.enumerate()))
    assert service.rows_of in ({}, {"run 0": []})


def test_a_failure_is_tried_again_while_the_run_is_on(tmp_path, started, monkeypatch):
    service, begin, saved, _ = started
    monkeypatch.setattr(module, "_AGAIN", 0.05)
    service.fails, saved[0] = TimeoutError("timed out"), 2
    sender = begin()
    write_rows(tmp_path, train(2))
    sender.covered(1, 2)
    time.sleep(0.02)
    service.fails = None
    wait_until(lambda: service.rows_of and service.rows == [train(2)])
    end(sender, 1)


def test_reasons_are_on_one_line():
    text = "HTTPConnectionPool(host='h', port=5): Max retries\n (Caused by: [Errno 111] Connection refused)"
    assert reason(OSError(text)) == "the connection is refused"
    assert reason(ValueError()) == "ValueError"
    assert reason(ValueError("a\n b")) == "a b"
    assert len(reason(ValueError("x" * 1000))) == 298
