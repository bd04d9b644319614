"""Answers that are kept in memory: as computed, of these weights and no others."""

import asyncio

import numpy as np
import pytest

from jaxnets.errors import UserError
from jaxnets.monitor.log import read_log
from jaxnets.monitor.recorder import Recorder
from jaxnets.serve.cache import Entry, MemoryStore, decode, encode, identity_of, key_of, open_store
from jaxnets.serve.limits import Limits
from tests.serve.fakes import PREDICT, FakeEngine, FakePredictor, client_of, fake_app, image

RESULTS = ("hit", "miss", "error")
KEY = b"k" * 32
ENTRY = Entry(np.array([0.25, 0.75, -3.5], np.float32), (20, 30))


class DrawnEngine(FakeEngine):
    """Says of each image something else every time, so that a kept answer is known by its bits."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = np.random.default_rng(0)

    def probabilities(self, images):
        super().probabilities(images)
        return self.drawn.dirichlet(np.ones(10), len(images)).astype(np.float32)


def asked(app, *contents, path=PREDICT, **options):
    """Returns the answers to requests one after another, and the figures of the cache then."""

    async def body():
        async with client_of(app) as client:
            answers = [(await client.post(path, content=content, **options)).json() for content in contents]
            return answers, figures((await client.get("/metrics")).text)

    return asyncio.run(body())


def figures(text):
    """Returns hits, misses and errors."""
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("jaxnets_cache_images_total"))
    found = (
        lines.get(f'jaxnets_cache_images_total{{model="fake",result="{one}"}}', 0) for one in ("hit", "miss", "error")
    )
    return tuple(int(float(value)) for value in found)


def drawn_app(store, **options):
    app, made = fake_app(predictor=FakePredictor(engine=DrawnEngine()), cache=store, **options)
    return app, made["fake"].engine


def test_a_kept_answer_is_the_computed_one_to_the_bit():
    store = MemoryStore(1 << 20)
    app, engine = drawn_app(store)
    warmed = len(engine.batches)
    answers, found = asked(app, image(1), image(2), image(1), image(2), image(1))
    assert answers[0] == answers[2] == answers[4] != answers[1] == answers[3]
    assert found == (3, 2, 0)
    assert sum(engine.batches[warmed:]) == 2
    (answer,), _ = asked(
        drawn_app(store)[0], image(1), path=f"{PREDICT}?top=10"
    )  # a row is kept, whatever was asked of it
    assert answer["predictions"][0]["top"][:5] == answers[0]["predictions"][0]["top"]
    assert len(answer["predictions"][0]["top"]) == 10


def test_without_a_cache_everything_is_computed():
    app, _ = drawn_app(None)
    answers, found = asked(app, image(1), image(1))
    assert answers[0] != answers[1]
    assert found == (0, 0, 0)


def test_of_several_images_those_that_are_not_kept_are_computed_and_all_in_order():
    store = MemoryStore(1 << 20)
    asked(fake_app(cache=store)[0], image(30), image(90))
    files = [("files", (f"{i}.png", image(30 * i))) for i in range(5)]
    (answer,), found = asked(fake_app(cache=store)[0], None, files=files)
    assert [one["top"][0]["label"][-1] for one in answer["predictions"]] == list("01234")
    assert found == (2, 3, 0)


def test_another_checkpoint_and_another_model_have_answers_of_their_own():
    store = MemoryStore(1 << 20)
    for predictor in (
        FakePredictor(step=1), FakePredictor(step=2), FakePredictor(temperature=2.0),
        FakePredictor(variables={"w": np.zeros(3)}), FakePredictor(variables={"w": np.array([0, 0, 1e-9])}),
    ):  # fmt: skip
        app, _ = fake_app(predictor=predictor, cache=store)
        assert asked(app, image(), image())[1] == (1, 1, 0)
    predictor = FakePredictor()
    told = {identity_of(predictor, name, recorded=recorded) for name in "ab" for recorded in (True, False)}
    assert len(told | {identity_of(FakePredictor(), "a", recorded=True)}) == 4
    assert len({key_of(identity, image()) for identity in told}) == 4


def test_a_newer_checkpoint_that_takes_over_answers_itself():
    app, made = fake_app(predictor=FakePredictor(step=1), cache=MemoryStore(1 << 20))
    models = app.user_middleware[-1].kwargs["models"]

    async def body():
        async with client_of(app) as client:
            first = [(await client.post(PREDICT, content=image())).json()["step"] for _ in range(2)]
            served = models.served["fake"]
            served._newer = lambda: 2
            made["fake"] = FakePredictor(step=2)
            assert await served.refresh()
            return first, [(await client.post(PREDICT, content=image())).json()["step"] for _ in range(2)]

    assert asyncio.run(body()) == ([1, 1], [2, 2])


def test_records_are_written_of_kept_answers_too(tmp_path):
    app, _ = fake_app(recorder=Recorder(tmp_path), cache=MemoryStore(1 << 20))
    answers, found = asked(app, image(60, size=(20, 10)), image(60, size=(20, 10)))
    assert found == (1, 1, 0)
    rows = read_log(tmp_path / "fake").rows
    assert [one["predictions"][0]["id"] for one in answers] == [f"{number:016x}" for number in rows["id"].tolist()]
    assert len(set(rows["id"].tolist())) == 2
    for field in ("label", "confidence", "energy", "brightness", "sharpness", "width", "height"):
        assert rows[field][0] == rows[field][1]
    assert rows["width"][1] == 20


def test_what_is_refused_is_not_kept():
    app, _ = fake_app(cache=MemoryStore(1 << 20), limits=Limits(max_pixels=100))
    answers, found = asked(app, b"no image", b"no image", image(size=(20, 20)), image(size=(20, 20)))
    assert [answer["error"]["code"] for answer in answers] == ["unsupported_image"] * 2 + ["too_many_pixels"] * 2
    assert found == (0, 4, 0)


def test_another_service_s_larger_images_stay_too_large():
    store = MemoryStore(1 << 20)
    asked(fake_app(cache=store)[0], image(size=(20, 20)))
    (answer,), found = asked(fake_app(cache=store, limits=Limits(max_pixels=100))[0], image(size=(20, 20)))
    assert answer["error"]["code"] == "too_many_pixels"
    assert found == (0, 1, 0)


def test_the_same_image_many_times_at_once_is_answered_and_kept_once():
    store = MemoryStore(1 << 20)
    app, _ = fake_app(cache=store)

    async def body():
        async with client_of(app) as client:
            return await asyncio.gather(*(client.post(PREDICT, content=image(60)) for _ in range(20)))

    assert {answer.json()["predictions"][0]["top"][0]["label"] for answer in asyncio.run(body())} == {"class 2"}
    assert len(store._kept) == 1
    assert store.bytes == len(next(iter(store._kept.values()))) + 256


def test_in_an_overload_what_is_kept_is_answered():
    limits = Limits(timeout=5, latency=0.05, burst=1, queue=1)
    app, made = fake_app(cache=MemoryStore(1 << 20), limits=limits)

    async def body():
        async with client_of(app) as client:
            await client.post(PREDICT, content=image(60))
            made["fake"].engine.open.clear()
            waiting = [asyncio.create_task(client.post(PREDICT, content=image(i))) for i in range(40)]
            await asyncio.sleep(0.3)
            kept, other = await client.post(PREDICT, content=image(60)), await client.post(PREDICT, content=image(99))
            made["fake"].engine.open.set()
            await asyncio.gather(*waiting)
            return kept.status_code, other.status_code

    assert asyncio.run(body()) == (200, 503)


def test_the_latest_used_stay_within_the_bytes_that_are_given():
    store = MemoryStore(3 * 300)  # three entries of 44 bytes and what Python takes

    async def body():
        for key in (b"a", b"b", b"c"):
            store.put({key: b"x" * 44})
        await store.get([b"a"])
        store.put({b"d": b"x" * 44})
        assert await store.get([b"a", b"b", b"c", b"d"]) == [b"x" * 44, None, b"x" * 44, b"x" * 44]
        store.put({b"e": b"x" * 4000})
        return store.bytes, len(store._kept)

    assert asyncio.run(body()) == (0, 0)


def test_what_an_entry_is_said_to_take_is_what_it_takes():
    import tracemalloc

    tracemalloc.start()
    store, row = MemoryStore(1 << 30), np.full(1000, 0.001, np.float32)
    before = tracemalloc.get_traced_memory()[0]
    for number in range(2000):
        key = number.to_bytes(32, "big")
        store.put({key: encode(key, Entry(row, (1, 1))) or b""})
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.9 * store.bytes < taken <= 1.05 * store.bytes


def test_an_entry_is_read_as_it_was_written():
    content = encode(KEY, ENTRY)
    found = decode(KEY, content, 3, 2)
    assert found.size == ENTRY.size
    assert found.row.tobytes() == ENTRY.row.tobytes()


def bad_contents():
    content = encode(KEY, ENTRY)
    for value in (np.nan, np.inf):
        assert encode(KEY, Entry(np.array([value, 0, 0], np.float32), (1, 1))) is None
    yield from (b"", b"x", content[:-1], content + b"\0", bytes(len(content)), b"jaxnets0" + content[8:])
    yield encode(b"o" * 32, ENTRY)  # of another image
    yield encode(KEY, Entry(ENTRY.row[:2], (1, 1)))  # of a model of fewer classes
    yield encode(KEY, Entry(np.array([7.0, 0, 0], np.float32), (1, 1)))  # no probability
    for place in range(len(content)):
        yield content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_what_is_not_an_entry_of_the_key_is_not_trusted():
    assert [content for content in bad_contents() if decode(KEY, content, 3, 2)] == []
    assert len(list(bad_contents())) > 60


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "nan", "inf", "64MB", "http://x/", "redis://x:y/0", "redis://h:1/x", "redis:6379", "1e30"]
)
def test_a_cache_that_is_none_is_refused(text):
    pytest.importorskip("redis")
    with pytest.raises(UserError, match="--cache"):
        open_store(text)


def test_memory_is_divided_among_processes():
    assert open_store("0") is None
    assert open_store("64", parts=4)._most == 16 << 20
