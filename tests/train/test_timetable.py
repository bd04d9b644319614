import pytest

from jaxnets.train.timetable import Timetable


def table(**changed) -> Timetable:
    usual = {"steps": 100, "batch_size": 10, "examples": 300, "log_every": 7, "eval_every": None, "save_every": None}
    return Timetable(**{**usual, **changed})


def when(due, steps=100) -> list[int]:
    return [step for step in range(1, steps + 1) if due(step)]


def test_an_epoch_ends_where_every_example_was_seen():
    assert when(table().evaluates) == [30, 60, 90, 100]
    assert when(table(examples=305).evaluates) == [31, 61, 92, 100]  # 30.5, 61 and 91.5 steps
    assert table().epoch(45) == 1.5


def test_of_a_tiny_set_so_many_epochs_go_together_that_25_steps_pass():
    assert when(table(examples=10).evaluates) == [25, 50, 75, 100]
    assert when(table(examples=4, batch_size=128, steps=60).evaluates, 60) == [25, 50, 60]
    assert when(table(examples=120).evaluates) == [36, 72, 100]  # three epochs of 12 steps


def test_what_the_config_says_goes_before():
    assert when(table(eval_every=40).evaluates) == [40, 80, 100]
    assert when(table(eval_every=40, save_every=30).saves) == [30, 60, 90, 100]
    assert when(table(eval_every=40).saves) == [40, 80, 100]
    assert when(table(log_every=33).logs) == [33, 66, 99, 100]


def test_nothing_is_due_before_the_first_step():
    assert not table(eval_every=40).evaluates(0)
    assert not table(examples=3).evaluates(0)


@pytest.mark.parametrize("changed", [{}, {"eval_every": 9, "save_every": 4}, {"examples": 10, "log_every": 1000}])
def test_no_dispatch_reaches_over_a_step_where_something_is_due(changed):
    t, step, stops = table(**changed), 0, []
    while step < t.steps:
        step = t.next_stop(step, others=(13, 14))
        stops.append(step)
    due = [step for step in range(1, 101) if t.evaluates(step) or t.saves(step) or t.logs(step)]
    assert set(due) | {13, 14} <= set(stops)
    assert stops[-1] == 100
