"""Answers that are kept: as computed, of these weights and no others, in memory and in Redis, which may be gone."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time

import numpy as np
import pytest

from jaxnets.errors import UserError
from jaxnets.monitor.log import read_log
from jaxnets.monitor.recorder import Recorder
from jaxnets.serve import redis_store
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


# A real Redis, where Debian's is installed.


@contextlib.contextmanager
def redis_server(folder, port=0):
    """Runs a Redis that keeps nothing on disk; yields its process and port."""
    pytest.importorskip("redis")
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server: apt-get install redis-server")
    if not port:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    try:
        yield process, port
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(redis_store, "_PAUSES", (0.05, 0.2))


def test_two_services_find_each_other_s_answers_in_redis(tmp_path):
    with redis_server(tmp_path) as (_, port):
        first, found = asked(drawn_app(open_store(f"redis://127.0.0.1:{port}/1"))[0], image(1), image(2))
        assert found == (0, 2, 0)
        second, found = asked(drawn_app(open_store(f"redis://127.0.0.1:{port}/1"))[0], image(1), image(2))
        assert found == (2, 0, 0)
        assert first == second
        _, found = asked(drawn_app(open_store(f"redis://127.0.0.1:{port}/2"))[0], image(1))
        assert found == (0, 1, 0)


def test_garbage_in_redis_is_computed_anew(tmp_path):
    redis = pytest.importorskip("redis")
    with redis_server(tmp_path) as (_, port):
        url = f"redis://127.0.0.1:{port}/0"
        asked(drawn_app(open_store(url))[0], image(1))
        client = redis.Redis.from_url(url)
        (key,) = client.keys()
        assert 0 < client.ttl(key) <= 24 * 3600
        right = client.get(key)
        for garbage in (b"", b"garbage", right[:-1], right[::-1], os.urandom(len(right))):
            client.set(key, garbage)
            anew, found = asked(drawn_app(open_store(url))[0], image(1))
            assert found == (0, 0, 1)
            assert asked(drawn_app(open_store(url))[0], image(1)) == (anew, (1, 0, 0))
        client.delete(key)
        client.rpush(key, "a list")  # what is no string
        assert asked(drawn_app(open_store(url))[0], image(1))[1] == (0, 1, 0)
        assert asked(drawn_app(open_store(url))[0], image(1))[1] == (1, 0, 0)
        client.close()


def test_a_redis_that_dies_hangs_and_comes_back_costs_no_answer(tmp_path, quick, caplog):
    caplog.set_level("INFO", "jaxnets")

    async def ask_until(client, wanted, *, seconds=20):
        """Asks for the same image until a figure rises."""
        place = RESULTS.index(wanted)
        before, deadline = figures((await client.get("/metrics")).text), time.monotonic() + seconds
        while True:
            answer = await client.post(PREDICT, content=image(60))
            assert answer.status_code == 200
            assert answer.json()["predictions"][0]["top"][0]["label"] == "class 2"
            now = figures((await client.get("/metrics")).text)
            if now[place] > before[place]:
                return
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    async def body(stack, process, port):
        app, _ = fake_app(cache=open_store(f"redis://127.0.0.1:{port}/0"))
        async with client_of(app) as client:
            await ask_until(client, "hit")
            process.send_signal(signal.SIGSTOP)  # it takes requests and says nothing
            await ask_until(client, "error")
            start = time.monotonic()
            answers = await asyncio.gather(*(client.post(PREDICT, content=image(i)) for i in range(20)))
            assert {answer.status_code for answer in answers} == {200}
            assert time.monotonic() - start < 2
            process.send_signal(signal.SIGCONT)
            await ask_until(client, "hit")
            process.kill()
            process.wait()
            await ask_until(client, "error")
            for _ in range(20):
                await ask_until(client, "error")
            stack.enter_context(redis_server(tmp_path, port))
            await ask_until(client, "hit")

    with contextlib.ExitStack() as stack:
        process, port = stack.enter_context(redis_server(tmp_path))
        asyncio.run(body(stack, process, port))
    said = [record.message for record in caplog.records if "redis://" in record.message]
    assert [("answers are computed" in message, "answers again" in message) for message in said] == [
        (True, False), (False, True), (True, False), (False, True),
    ]  # fmt: skip


def test_a_redis_that_never_was_is_in_the_log_without_its_password(quick, caplog):
    pytest.importorskip("redis")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    app, _ = fake_app(cache=open_store(f"redis://:secret@127.0.0.1:{port}/0"))
    answers, found = asked(app, image(60), image(60))
    assert [answer["predictions"][0]["top"][0]["label"] for answer in answers] == ["class 2"] * 2
    assert found == (0, 0, 2)
    assert f"redis://127.0.0.1:{port}/0" in caplog.text
    assert "secret" not in caplog.text


def test_a_full_redis_is_still_read(tmp_path, quick, caplog):
    redis = pytest.importorskip("redis")
    with redis_server(tmp_path) as (_, port):
        url = f"redis://127.0.0.1:{port}/0"
        asked(fake_app(cache=open_store(url))[0], image(60))
        with redis.Redis.from_url(url) as client:
            client.config_set("maxmemory", "1")
        _, found = asked(fake_app(cache=open_store(url))[0], image(60), image(90), image(60), image(90), image(60))
        assert found == (3, 2, 0)
    assert caplog.text.count("keeps nothing (command not allowed when used memory > 'maxmemory'.)") == 1
