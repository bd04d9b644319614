"""Answers that are kept in a real Redis (Debian's redis-server), which may be gone, slow, full, or hold anything."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest

from jaxnets.serve import redis_store
from jaxnets.serve.cache import open_store
from tests.serve.fakes import PREDICT, client_of, fake_app, image
from tests.serve.test_cache import RESULTS, asked, drawn_app, figures


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
