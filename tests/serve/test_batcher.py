import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from jaxnets.serve.admission import Admission, Overloaded
from jaxnets.serve.batcher import Batcher, largest_batch

BLANK = np.zeros((2, 2, 1), np.uint8)


class Model:
    """Returns each image's first value; waits while it is held."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()

    def __call__(self, images):
        self.go.wait(10)
        self.batches.append(images[:, 0, 0, 0].tolist())
        return images[:, 0, :1, 0].astype(np.float32)


def numbered(value):
    return lambda: np.full((2, 2, 1), value, np.uint8)


def run(body, wait=1e9, capacity=100, **options):
    """Runs `body(model, batcher)` on an event loop, and closes the batcher."""
    admission = Admission(wait=wait, capacity=capacity)

    async def main():
        model = Model()
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(model, **{"most": 4, "admission": admission, "pool": pool, **options})
            try:
                await body(model, batcher)
            finally:
                model.go.set()
                await batcher.close()
        return model

    return asyncio.run(main())


async def until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def test_what_waits_goes_through_together_and_everyone_gets_their_own():
    async def body(model, batcher):
        first = batcher.submit([numbered(0)])
        await until(lambda: not batcher._ready and batcher.pending == 1)
        futures = [batcher.submit([numbered(i)]) for i in range(1, 8)]
        await until(lambda: len(batcher._ready) == 7)
        model.go.set()
        rows = await asyncio.gather(first, *futures)
        assert [row.tolist() for row in rows] == [[[i]] for i in range(8)]

    model = run(body)
    assert sum(map(len, model.batches)) == 8
    assert max(map(len, model.batches)) == 4
    assert len(model.batches) <= 4


def test_the_images_of_one_request_keep_their_order_over_batches():
    async def body(model, batcher):
        model.go.set()
        rows = await batcher.submit([numbered(i) for i in range(9)])
        assert rows[:, 0].tolist() == list(range(9))

    run(body)


def test_beyond_the_bound_a_request_is_refused_and_says_for_how_long():
    async def body(model, batcher):
        futures = [batcher.submit([numbered(i)]) for i in range(3)]
        with pytest.raises(Overloaded) as raised:
            batcher.submit([numbered(9)])
        assert raised.value.seconds > 0
        model.go.set()
        await asyncio.gather(*futures)
        await batcher.submit([numbered(9)])

    run(body, capacity=3)


def test_the_bound_follows_the_time_that_an_image_takes():
    async def body(model, batcher):
        futures = [batcher.submit([numbered(i)]) for i in range(10)]
        with pytest.raises(Overloaded):
            batcher.submit([numbered(9)])
        model.go.set()
        await asyncio.gather(*futures)

    run(body, wait=0.1, seconds_per_image=0.01)


def test_batches_shrink_where_the_model_takes_longer_than_they_may():
    async def body(model, batcher):
        assert batcher.largest == 4
        model.go.set()
        await batcher.submit([numbered(0)])
        assert batcher.largest == 1
        await batcher.submit([numbered(i) for i in range(3)])

    assert max(map(len, run(body, batch_seconds=1e-8).batches)) == 1


@pytest.mark.parametrize(("seconds", "largest"), [(0.011, 4), (0.004, 2), (0.001, 1), (1.0, 8)])
def test_the_largest_batch_is_a_power_of_two_that_fits_in_its_time(seconds, largest):
    async def body(model, batcher):
        assert batcher.largest == largest

    run(body, most=8, batch_seconds=seconds, seconds_per_image=0.002)


def test_workers_compute_side_by_side():
    meeting = threading.Barrier(2, timeout=10)  # nobody leaves it alone

    async def body(model, batcher):
        batcher._compute = lambda images: (meeting.wait(), np.zeros((len(images), 1), np.float32))[1]
        return await asyncio.gather(*(batcher.submit([numbered(i)]) for i in range(2)))

    run(body, workers=2, most=1)
    assert not meeting.broken  # by a worker that waited for the other in vain


def test_what_is_idle_takes_a_request_of_any_size():
    async def body(model, batcher):
        model.go.set()
        assert len(await batcher.submit([numbered(i) for i in range(9)])) == 9

    run(body, capacity=3)


def test_what_its_client_gave_up_is_not_computed():
    async def body(model, batcher):
        first = batcher.submit([numbered(0)])
        await until(lambda: not batcher._ready)
        second, third = batcher.submit([numbered(1)]), batcher.submit([numbered(2)])
        second.cancel()
        await asyncio.sleep(0)
        assert batcher.pending == 2
        model.go.set()
        await asyncio.gather(first, third)

    assert all(1 not in batch for batch in run(body).batches)


def test_an_image_that_cannot_be_prepared_fails_alone():
    def broken():
        raise ValueError("broken")

    async def body(model, batcher):
        model.go.set()
        good, bad = batcher.submit([numbered(1)]), batcher.submit([numbered(2), broken])
        assert (await good).tolist() == [[1]]
        with pytest.raises(ValueError, match="broken"):
            await bad
        await until(lambda: batcher.pending == 0)

    run(body)


def test_a_batch_that_fails_leaves_the_next_one_alone():
    async def body(model, batcher):
        batcher._compute, compute = (lambda images: 1 / 0), batcher._compute
        model.go.set()
        with pytest.raises(ZeroDivisionError):
            await batcher.submit([numbered(1)])
        batcher._compute = compute
        assert (await batcher.submit([numbered(2)])).tolist() == [[2]]

    run(body)


def test_closing_answers_what_was_accepted():
    async def body(model, batcher):
        futures = [batcher.submit([numbered(i)]) for i in range(6)]
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0.01)
        assert not closing.done()
        model.go.set()
        await closing
        assert all(future.done() for future in futures)
        assert not any(thread.is_alive() for thread in batcher._threads)

    run(body)


@pytest.mark.parametrize(
    ("seconds", "overhead", "largest"), [(1.0, 0.01, 64), (0.03, 0.01, 16), (0.001, 0.01, 1), (1.0, 0.0, 1)]
)
def test_the_batch_is_no_larger_than_time_and_use_allow(seconds, overhead, largest, monkeypatch):
    monkeypatch.setattr("jaxnets.serve.batcher._time", lambda compute, batch, clock: overhead + 0.001 * len(batch))
    size, each = largest_batch(lambda images: images, BLANK, seconds)
    assert size == largest
    assert each == pytest.approx(overhead / size + 0.001)
