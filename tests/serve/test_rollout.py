"""A second model that shadows, and is tried on a share of the requests."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from jaxnets.monitor.log import read_log
from jaxnets.monitor.recorder import Recorder
from jaxnets.serve.limits import Limits
from tests.serve.fakes import client_of
from tests.serve.rolling import (
    ALL,
    OLD,
    PETS,
    answers,
    failing_later,
    models_of,
    rollout_of,
    shadowing,
    trying,
    until,
)

# A shadow


def test_nobody_waits_for_a_shadow_and_what_it_says_is_counted(tmp_path):
    app, made = shadowing(recorder=Recorder(tmp_path))
    probabilities = made["new"].engine.probabilities

    async def body():
        async with client_of(app) as client:
            made["new"].engine.probabilities = lambda images: probabilities(images)[:, ::-1]
            made["new"].engine.open.clear()
            found = await answers(client, 3, OLD)
            assert rollout_of(app, "old")["copies"]["requests"] == 0
            made["new"].engine.open.set()
            rollouts = models_of(app).rollouts
            await until(lambda: sum(one.copies.requests for one in rollouts._counts.values()) == 3)
            await rollouts.poll()
            shown = (await client.get("/v1/models")).json()["models"][0]["rollout"]
            return found, shown, (await client.get("/metrics")).text

    found, shown, metrics = asyncio.run(body())
    assert found == [(200, "old")] * 3
    assert (shown["phase"], shown["share"], shown["copies"]["disagreement"]) == ("shadow", 0.0, 1.0)
    assert 'jaxnets_copies_total{model="new",name="old",outcome="disagreed"} 3.0' in metrics
    assert 'jaxnets_copy_seconds_count{model="new",name="old"} 3.0' in metrics
    ids = [read_log(tmp_path / name).rows["id"].tolist() for name in ("old", "new")]
    assert ids[0] == ids[1]


def test_a_shadow_that_is_behind_loses_copies_and_no_request():
    app, made = shadowing()

    async def body():
        async with client_of(app) as client:
            made["new"].engine.open.clear()
            found = await answers(client, 70, OLD)
            await models_of(app).rollouts.poll()
            made["new"].engine.open.set()
            return found

    assert asyncio.run(body()) == [(200, "old")] * 70
    assert rollout_of(app, "old")["copies"]["dropped"] in (5, 6)  # 64 wait, and one is at hand


def test_a_shadow_that_fails_is_counted_and_fails_nobody(caplog):
    app, made = shadowing()
    failing_later(made["new"])

    async def body():
        async with client_of(app) as client:
            found = await answers(client, 3, OLD)
            rollouts = models_of(app).rollouts
            await until(lambda: sum(one.copies.failures for one in rollouts._counts.values()) == 3)
            return found

    assert asyncio.run(body()) == [(200, "old")] * 3
    assert caplog.text.count("a copy for new failed") == 1


def test_what_was_refused_is_not_copied():
    app, _ = shadowing()

    async def body():
        async with client_of(app) as client:
            assert (await client.post(f"{OLD}/predict", content=b"no image")).status_code == 415
            await models_of(app).rollouts.poll()

    asyncio.run(body())
    assert rollout_of(app, "old")["copies"]["requests"] == rollout_of(app, "old")["answered"]["stable"]["requests"] == 0


# A candidate on trial


def test_a_candidate_within_bounds_is_promoted():
    app, _ = trying(replace(ALL, steps=(0.5, 1.0), compare=1.0))

    async def body():
        async with client_of(app) as client:
            rollouts, found = models_of(app).rollouts, []
            for _ in range(2):
                found += await answers(client, 30)
                await until(lambda: sum(one.copies.requests for one in rollouts._counts.values()) == 30)
                await rollouts.poll()
            return found

    found = asyncio.run(body())
    assert {status for status, _ in found} == {200}
    assert {model for _, model in found[:30]} == {"old", "new"}
    assert {model for _, model in found[30:]} == {"new"}
    assert rollout_of(app)["phase"] == "promoted"


def test_what_a_candidate_fails_at_the_old_model_answers_and_it_goes_back(caplog):
    app, made = trying()
    failing_later(made["new"])

    async def body():
        async with client_of(app) as client:
            found = await answers(client, 6)
            await models_of(app).rollouts.poll()
            metrics = (await client.get("/metrics")).text
            failing_later(made["old"])
            return found, metrics, await answers(client, 1)

    found, metrics, then = asyncio.run(body())
    assert found == [(200, "old")] * 6
    shown = rollout_of(app)
    assert (shown["phase"], shown["bound"], shown["share"]) == ("rolled back", "errors", 0.0)
    assert shown["reason"] == "6 of 6 requests failed, and 1.00% may"
    assert "new goes back to 0 %, old answers all: 6 of 6 requests failed" in caplog.text
    assert 'jaxnets_rollout_rolled_back{bound="errors",name="pets"} 1.0' in metrics
    assert 'jaxnets_rollout_share{candidate="new",name="pets"} 0.0' in metrics
    assert 'jaxnets_rollout_answers_total{model="new",name="pets",outcome="failed"} 6.0' in metrics
    assert then == [(500, None)]


def test_a_candidate_that_does_not_answer_leaves_time_for_the_old_model():
    app, made = trying(limits=Limits(timeout=0.6))

    async def body():
        async with client_of(app) as client:
            made["new"].engine.open.clear()
            found = await answers(client, 1)
            made["new"].engine.open.set()
            return found

    assert asyncio.run(body()) == [(200, "old")]


def test_a_candidate_has_half_of_the_time_and_the_old_model_what_is_left():
    app, _ = trying(limits=Limits(timeout=8))
    rollouts, given = models_of(app).rollouts, []

    async def ask(served, limits):
        given.append((served.name, limits.timeout))
        if served.name == "new":
            raise RuntimeError("broken")
        return SimpleNamespace(loaded=served.current, seconds=0.0)

    asyncio.run(rollouts.answer("pets", None, ask, []))
    assert given == [("new", 4), ("old", pytest.approx(8, abs=1))]


def test_a_client_s_mistake_is_no_failure():
    app, _ = trying()

    async def body():
        async with client_of(app) as client:
            for _ in range(20):
                assert (await client.post(f"{PETS}/predict", content=b"no image")).status_code == 415
            await models_of(app).rollouts.poll()

    asyncio.run(body())
    assert rollout_of(app)["answered"]["candidate"]["requests"] == 0


def test_a_candidate_that_says_something_else_goes_back():
    app, made = trying(replace(ALL, steps=(0.01, 1.0), compare=1.0))
    probabilities = made["new"].engine.probabilities
    made["new"].engine.probabilities = lambda images: probabilities(images)[:, ::-1]

    async def body():
        async with client_of(app) as client:
            await answers(client, 6)
            rollouts = models_of(app).rollouts
            await until(lambda: sum(one.copies.requests for one in rollouts._counts.values()) == 6)
            await rollouts.poll()

    asyncio.run(body())
    assert rollout_of(app)["bound"] == "disagreement"
    assert "others than old's, and 10.00% may be" in rollout_of(app)["reason"]
