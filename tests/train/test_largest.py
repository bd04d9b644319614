import math

import numpy as np
import pytest

from jaxnets.train.largest import largest_batch


def asked(need, room, **changed):
    """Returns what was found, and the batches that were asked about in their order."""
    seen = []

    def noting(batch):
        seen.append(batch)
        return need(batch)

    given = {"fixed": 0.0, "quantum": 1, "first": 32, "most": 10**6, **changed}
    return largest_batch(noting, room, **given), seen


@pytest.mark.parametrize("quantum", [1, 8, 24])
def test_a_straight_line_takes_three_questions_and_loses_no_more_than_a_16th(quantum):
    random = np.random.default_rng(quantum)
    for _ in range(200):
        fixed, slope, room = 10 ** random.uniform(6, 9), 10 ** random.uniform(4, 7), 10 ** random.uniform(9.3, 11)
        found, seen = asked(lambda b, k=slope, f=fixed: f + k * b, room, fixed=fixed, quantum=quantum)
        largest = math.floor((room - fixed) / slope) // quantum * quantum
        if largest < quantum:
            assert found.size is None
            continue
        largest = min(largest, 10**6 // quantum * quantum)
        assert fixed + slope * found.size <= room
        assert found.size % quantum == 0
        assert found.size >= largest - max(quantum, largest / 16)
        assert len(seen) <= 3


def test_a_bent_line_is_followed_to_within_a_16th():
    def need(batch):  # from some size on the compiler computes some of it again
        return 1e8 + 1e6 * min(batch, 700) + 4e5 * max(batch - 700, 0)

    found, seen = asked(need, 1.2e9, fixed=1e8)
    assert 1700 * 15 / 16 <= found.size <= 1700
    assert len(seen) <= 8


def test_what_the_compiler_refuses_without_a_number_is_halved_in():
    found, _ = asked(lambda batch: 1e5 * batch if batch <= 777 else None, 1e12, tries=12)
    assert 777 * 15 / 16 <= found.size <= 777
    assert found.refused > 777


def test_no_batch_fits():
    found, _ = asked(lambda batch: 5e9 + batch, 1e9, fixed=5e9, quantum=4)
    assert found.size is None
    assert found.refused == 4
    assert found.need == 5e9 + 4


def test_no_batch_is_larger_than_the_most():
    found, _ = asked(lambda batch: batch, 1e12, quantum=8, most=1001)
    assert found.size == 1000
    assert found.refused is None
