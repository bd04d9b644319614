"""Batches are made ahead, in order, by any number of threads; errors come in their turn, and threads end."""

import gc
import threading
import time

import numpy as np
import pytest

from jaxnets.data.loader import Loader

ROWS = 20


class Numbers:
    """A batch of numbers that say where they stand; rows in `failing` raise."""

    def __init__(self, number, failing=(), gate=None):
        self.rows, self.number, self.failing, self.gate = ROWS, number, failing, gate
        self.values = np.full(ROWS, -1)

    def fill(self, row):
        if self.gate is not None:
            self.gate.wait(10)
        if (self.number, row) in self.failing:
            raise ValueError(f"{self.number}/{row}")
        assert self.values[row] == -1, "filled twice"
        self.values[row] = self.number * ROWS + row

    def batch(self):
        return self.values


def threads_of(loader):
    return [thread for thread in loader._threads if thread.is_alive()]


@pytest.mark.parametrize("threads", [0, 1, 2, 5])
def test_any_number_of_threads_makes_the_same_batches(threads):
    batches = list(Loader(Numbers, 3, 11, threads=threads, ahead=3))
    np.testing.assert_array_equal(np.concatenate(batches), np.arange(3 * ROWS, 11 * ROWS))


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_is_raised_in_place_of_its_batch_and_of_several_that_of_the_first_row(threads):
    failing = {(2, 17), (2, 9), (3, 0)}
    loader = Loader(lambda number: Numbers(number, failing), 0, 6, threads=threads, ahead=4)
    assert [int(next(loader)[0]) for _ in range(2)] == [0, ROWS]
    with pytest.raises(ValueError, match=r"^2/9$"):
        next(loader)
    assert list(loader) == []


@pytest.mark.parametrize("threads", [0, 2])
def test_a_batch_that_cannot_be_begun_is_an_error_in_its_turn(threads):
    def begin(number):
        if number == 1:
            raise KeyError("no such batch")
        return Numbers(number)

    loader = Loader(begin, 0, 4, threads=threads, ahead=3)
    next(loader)
    with pytest.raises(KeyError, match="no such batch"):
        next(loader)


def test_no_more_is_begun_than_may_be_ahead():
    begun = []

    def begin(number):
        begun.append(number)
        return Numbers(number)

    loader = Loader(begin, 0, 100, threads=2, ahead=3)
    for taken in range(3):
        assert loader.ready(10)
        deadline = time.monotonic() + 10
        while len(begun) < taken + 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)  # in which more would be begun
        assert len(begun) == taken + 3
        next(loader)
    loader.close()


def test_a_batch_is_ready_when_all_its_rows_are():
    gate = threading.Event()
    loader = Loader(lambda number: Numbers(number, gate=gate), 0, 1, threads=1, ahead=1)
    assert not loader.ready(0.01)
    gate.set()
    assert loader.ready(10)
    next(loader)
    assert loader.ready(0)  # to say that it has ended
    assert next(loader, None) is None


@pytest.mark.parametrize("end", [Loader.close, lambda loader: None], ids=["closed", "forgotten"])
def test_threads_end_with_their_loader(end):
    loader = Loader(Numbers, 0, 10**9, threads=2, ahead=2)
    next(loader)
    threads = threads_of(loader)
    assert len(threads) == 2
    end(loader)
    del loader
    gc.collect()
    assert not any(thread.is_alive() for thread in threads)


def test_a_closed_loader_is_at_its_end():
    loader = Loader(Numbers, 0, 10, threads=1, ahead=2)
    loader.close()
    assert list(loader) == []
