"""What a service under some load accepts and refuses, in simulated time."""

import heapq
import itertools
import random

import numpy as np
import pytest

from jaxnets.serve.admission import Admission

WAIT, BURST, BURST_SECONDS = 0.08, 64, 2.5  # of a service with its defaults
LITE0 = 0.0072  # seconds an image on two cores together


class Simulation:
    """A queue with some workers; each image takes them `each` seconds together."""

    def __init__(self, each: float, workers: int = 2, **changed) -> None:
        options = {"wait": WAIT, "capacity": 256, "burst": BURST, "burst_seconds": BURST_SECONDS, **changed}
        self.now = 0.0
        self.admission = Admission(**options, workers=workers, clock=lambda: self.now)
        self.each = each
        self.workers = workers
        self.waiting = 0
        self.answered: list[tuple[float, float]] = []  # when it was accepted, its duration
        self.refused: list[float] = []  # when

    def run(self, arrivals, closed: float | None = None, until: float = float("inf")) -> "Simulation":
        """Lets requests of one image arrive at given times; who is answered or refused asks again, if `closed`."""
        free = [0.0] * self.workers
        ties = itertools.count()
        events = [(time, next(ties), True, 0.0) for time in arrivals]
        heapq.heapify(events)
        while events and events[0][0] <= until:
            self.now, _, arrives, since = heapq.heappop(events)
            again = None
            if not arrives:
                self.waiting -= 1
                self.answered.append((since, self.now - since))
                again = 0.001
            elif self.admission.refuse(self.waiting, 1, self.each):
                self.refused.append(self.now)
                again = closed
            else:
                self.waiting += 1
                done = max(heapq.heappop(free), self.now) + self.each * self.workers
                heapq.heappush(free, done)
                heapq.heappush(events, (done, next(ties), False, self.now))
            if closed and again:
                heapq.heappush(events, (self.now + again, next(ties), True, 0.0))
        return self

    def p99(self, after: float = 0.0) -> float:
        return float(np.percentile([duration for since, duration in self.answered if since >= after], 99))


def at_random(rate: float, seconds: float, start: float = 0.0) -> list[float]:
    """Returns times at which requests arrive, independent of one another."""
    draw, times = random.Random(0), [start]
    while times[-1] < start + seconds:
        times.append(times[-1] + draw.expovariate(rate))
    return times


@pytest.mark.parametrize("each", [0.0003, LITE0, 0.015, 0.035])
def test_an_idle_service_answers_a_burst_of_64(each):
    burst = Simulation(each).run([10 + i / 1e5 for i in range(64)])
    assert (len(burst.answered), burst.refused) == (64, [])


@pytest.mark.parametrize(("each", "most"), [(0.2, 12), (0.05, 50), (2.0, 2), (20.0, 2)])
def test_a_burst_takes_no_longer_than_it_may(each, most):
    burst = Simulation(each, workers=1).run([10.0] * 64)
    assert len(burst.answered) == most
    assert max(duration for _, duration in burst.answered) <= max(BURST_SECONDS, 2 * each) + 1e-6


@pytest.mark.parametrize("each", [0.0072, 0.01, 0.012, 0.025])
@pytest.mark.parametrize("clients", [2, 8])
def test_clients_that_ask_one_after_another_are_all_answered(clients, each):
    busy = Simulation(each).run([0.001 * i for i in range(clients)], closed=0.001, until=60)
    assert busy.refused == []
    assert len(busy.answered) > 0.95 * 60 / each or clients == 2


@pytest.mark.parametrize("load", [1.5, 2, 5, 20])
def test_a_lasting_overload_is_shed_to_the_latency_that_is_allowed(load):
    overload = Simulation(LITE0).run(at_random(load / LITE0, 20))
    assert overload.p99(after=3.0) <= 0.1
    assert len(overload.answered) > 0.97 * 20 / LITE0  # and the machine has always something to do
    assert max(duration for _, duration in overload.answered) <= BURST * LITE0 + 0.01


@pytest.mark.parametrize("load", [5, 20])
def test_an_image_that_takes_longer_than_it_may_is_accepted_two_at_a_time(load):
    overload = Simulation(0.2, workers=1).run(at_random(load / 0.2, 60))
    assert overload.p99(after=4.0) <= 0.4 + 1e-6
    assert len(overload.answered) > 0.95 * 60 / 0.2


def test_a_service_at_two_thirds_refuses_nothing():
    assert Simulation(LITE0).run(at_random(0.67 / LITE0, 60)).refused == []


def test_more_clients_than_are_answered_in_time_are_shed():
    crowd = Simulation(LITE0).run([0.0] * 60, closed=0.05, until=20)
    assert crowd.p99(after=2.0) <= 0.1


def test_after_an_overload_a_burst_is_answered_again():
    after = Simulation(LITE0).run(at_random(5 / LITE0, 5) + [7.0] * 64)
    assert max(after.refused) < 7
    assert len([since for since, _ in after.answered if since == 7]) == 64


def test_what_is_refused_says_the_bound_and_when_there_is_room():
    admission = Admission(wait=0.08, capacity=256, burst=64, burst_seconds=2.5, workers=2, clock=lambda: 0.0)
    refused = admission.refuse(64, 1, 0.01)
    assert "64 images wait and 64 may" in str(refused)
    refused = admission.refuse(64, 1, 0.01)
    assert (
        "64 images wait and 8 may, by the latency that is allowed (0.08 s) × the speed that is measured (100 "
        in str(refused)
    )
    assert refused.seconds == pytest.approx(0.57)
    assert admission.refuse(0, 1000, 0.01) is None
