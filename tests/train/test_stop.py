"""The clock and signals end a session wherever it is, with what is done saved."""

import signal
import threading
import time
from contextlib import contextmanager

import pytest

from jaxnets import exit
from jaxnets.errors import TEMPORARY
from jaxnets.run.checkpoints import steps
from jaxnets.run.directory import RunDirectory
from jaxnets.train import loop, opened, stop
from jaxnets.train.display import Display
from jaxnets.train.feed import ResidentFeed
from jaxnets.train.loop import train
from jaxnets.train.stop import Stop, Stopped, listening, unless
from tests.train.runs import assert_same_run, rows_of, short

CONFIG = {"steps": 8, "eval_every_steps": 4, "log_every_steps": 1, "max_hours": 1.0}


class Clock:
    """A clock of which the hour can be made to pass."""

    def __init__(self, monkeypatch):
        self._passed = 0.0
        real = time.monotonic
        monkeypatch.setattr(stop.time, "monotonic", lambda: real() + self._passed)

    def pass_an_hour(self):
        self._passed += 3600


@pytest.fixture(autouse=True)
def orderly(monkeypatch):
    monkeypatch.setattr(exit, "_at_once", threading.Event())  # is for good, otherwise


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, one_device):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    train(short(**CONFIG), workdir, Display(), one_device)
    return workdir


def assert_goes_on_to_the_same(outcome, saved, workdir, whole, mesh):
    assert (outcome.status, outcome.finished) == (TEMPORARY, False) == (75, False)
    assert [outcome.step] == (steps(workdir / "checkpoints")[-1:] or [0]) == [saved]
    assert train(short(**CONFIG), workdir, Display(), mesh).status == 0
    assert_same_run(workdir, whole)


def test_the_time_ends_in_training(tmp_path, one_device, whole, clock):
    class Watcher(Display):
        def update(self, step, *figures):
            if step == 2:
                clock.pass_an_hour()

    outcome = train(short(**CONFIG), tmp_path / "run", Watcher(), one_device)
    assert 2 <= outcome.step < 8
    assert_goes_on_to_the_same(outcome, outcome.step, tmp_path / "run", whole, one_device)


@contextmanager
def taking_for_ever(monkeypatch, clock, place, name):
    """Has something last until the end of the block, in which an hour passes."""
    end = threading.Event()

    def work(*arguments):
        clock.pass_an_hour()
        end.wait()

    with monkeypatch.context() as patched:
        patched.setattr(place, name, work)
        yield
    end.set()


@pytest.mark.parametrize(("place", "name", "step"), [(ResidentFeed, "compile", 0), (loop.Evaluator, "_compile", 4)])
def test_the_time_ends_in_a_compilation(tmp_path, one_device, whole, clock, monkeypatch, place, name, step):
    with taking_for_ever(monkeypatch, clock, place, name):
        outcome = train(short(**CONFIG), tmp_path / "run", Display(), one_device)
    assert_goes_on_to_the_same(outcome, step, tmp_path / "run", whole, one_device)


def test_a_run_that_was_stopped_can_be_declared_done(tmp_path, one_device, clock):
    class Watcher(Display):
        def update(self, step, *figures):
            if step == 6:
                clock.pass_an_hour()

    stopped = train(short(**CONFIG), tmp_path / "run", Watcher(), one_device)
    assert 6 <= stopped.step < 8
    outcome = train(short(**{**CONFIG, "steps": 5}), tmp_path / "run", Display(), one_device)
    assert (outcome.status, outcome.step) == (0, stopped.step)
    assert rows_of(tmp_path / "run")[-1]["step"] == stopped.step
    assert "test/accuracy" in rows_of(tmp_path / "run")[-1]


def test_the_time_ends_before_the_data_is_read(tmp_path, one_device, whole, clock, monkeypatch):
    with taking_for_ever(monkeypatch, clock, opened, "open_dataset"):
        outcome = train(short(**CONFIG), tmp_path / "run", Display(), one_device)
    assert not RunDirectory(tmp_path / "run").is_run()
    assert_goes_on_to_the_same(outcome, 0, tmp_path / "run", whole, one_device)


def test_a_tenth_of_the_time_is_kept_for_saving_and_more_where_saving_is_slow(clock):
    def left(stop):
        return stop._end - stop._margin - stop_time()

    stop_time = stop.time.monotonic
    hour = Stop(max_hours=1, started=stop_time())
    assert left(hour) == pytest.approx(3600 - 120, abs=1)
    assert left(Stop(max_hours=0.1, started=stop_time())) == pytest.approx(360 - 36, abs=1)
    hour.expect_save(100)
    assert left(hour) == pytest.approx(3600 - 200, abs=1)


def test_without_a_limit_the_time_never_ends(clock):
    endless = Stop()
    clock.pass_an_hour()
    assert not endless


def test_a_signal_that_comes_twice_at_once_is_one():
    stopping, said = Stop(), []
    with listening(stopping, said.append):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    assert stopping.status == 143
    assert len(said) == 1


def test_a_signal_after_that_of_another_process_is_the_first():
    stopping = Stop()
    with listening(stopping, lambda text: None):
        stopping.heard(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    assert stopping.status == 143


def test_a_second_signal_later_ends_the_run_at_once(clock):
    with listening(Stop(), lambda text: None):
        signal.raise_signal(signal.SIGINT)
        clock.pass_an_hour()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_what_work_raises_and_returns_comes_through():
    assert unless(Stop(), lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        unless(Stop(), lambda: 1 // 0)


def test_work_is_left_behind_when_a_signal_comes():
    stopping, never = Stop(), threading.Event()

    def work():
        stopping.signal = signal.SIGTERM
        never.wait()

    with pytest.raises(Stopped):
        unless(stopping, work)
    never.set()
    assert stopping.status == 143
