"""Garbage at the routes that let a model take over."""

import asyncio
import json
import logging
import random

import pytest

from jaxnets.serve.limits import Keys
from jaxnets.serve.source import Split
from tests.serve.fakes import client_of, fake_app
from tests.serve.rolling import ADMIN, PETS, bringing, made_runs, trying


@pytest.fixture
def runs(tmp_path):
    return made_runs(tmp_path)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "no_json"),
        (b"\xff\xfe", 400, "no_json"),
        (b"[" * 50_000, 400, "no_json"),
        (b"9" * 50_000, 400, "no_json"),
        (b"[]", 422, "no_object"),
        (b'{"path": "x"}', 422, "unknown_field"),
        (b'{"model": 3}', 422, "no_text"),
        (b'{"model": ""}', 422, "no_text"),
        (b" " * 70_000, 413, "body_too_large"),
    ],
)
def test_a_body_that_is_none(body, status, code, runs):
    app = bringing(runs)

    async def one():
        async with client_of(app) as client:
            return await client.post(f"{PETS}/canary", headers=ADMIN, content=body)

    answer = asyncio.run(one())
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_name_that_there_is_not():
    app, _ = trying()

    async def body():
        async with client_of(app) as client:
            return [
                (await client.post(f"/v1/models/{name}/{what}", headers=ADMIN)).json()["error"]["code"]
                for name in ("other", "old")
                for what in ("promote", "rollback", "canary")
            ]

    assert asyncio.run(body()) == ["no_such_model"] * 3 + ["no_candidate"] * 3


def test_a_split_of_one_model_has_no_candidate():
    app, _ = fake_app("old", splits=[Split.parse("pets=old:1")], admin=Keys(["admin"]))

    async def body():
        async with client_of(app) as client:
            return [await client.post(f"{PETS}/{what}", headers=ADMIN) for what in ("promote", "rollback", "canary")]

    found = [(answer.status_code, answer.json()["error"]["code"]) for answer in asyncio.run(body())]
    assert found == [(404, "no_candidate")] * 2 + [(409, "split")]


def test_garbage_is_never_an_error_of_the_service(runs, caplog):
    app = bringing(runs)
    draw = random.Random(0)
    words = ["model", "name", "new", "..", "/", "\0", "é", "hf:x", "😀", "{", "[", "null", "1e999", "-0", "pets", "%2e"]

    def value(depth=0):
        kind = draw.randrange(7 if depth < 3 else 4)
        if kind == 4:
            return [value(depth + 1) for _ in range(draw.randrange(3))]
        if kind > 4:
            return {draw.choice(words): value(depth + 1) for _ in range(draw.randrange(3))}
        return [None, draw.random(), draw.choice(words), "".join(draw.choices(words, k=4))][kind]

    async def body():
        statuses = set()
        async with client_of(app) as client:
            for _ in range(300):
                content = json.dumps(value()).encode("utf-8", "surrogatepass")
                if draw.random() < 0.3:
                    content = bytes(draw.randrange(256) for _ in range(draw.randrange(40)))
                elif draw.random() < 0.5:
                    content = json.dumps({draw.choice(["model", "name"]): value(3) for _ in range(2)}).encode()
                name = draw.choice(["pets", "other", "%00", "..", "new", "a" * 300])
                what = draw.choice(["promote", "rollback", "canary"])
                answer = await client.request(
                    draw.choice(["POST", "POST", "POST", "GET", "PUT"]), f"/v1/models/{name}/{what}", content=content,
                    headers={**ADMIN, "content-type": draw.choice(["application/json", "multipart/form-data"])},
                )  # fmt: skip
                statuses.add(answer.status_code)
        return statuses

    with caplog.at_level(logging.CRITICAL):
        statuses = asyncio.run(body())
    assert {400, 404, 422} <= statuses
    assert max(statuses) < 500
