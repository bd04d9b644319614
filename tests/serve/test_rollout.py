"""A second model that shadows, is tried, and takes over, while requests come in."""

import asyncio
import json
import logging
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest

from jaxnets.monitor.log import read_log
from jaxnets.monitor.recorder import Recorder
from jaxnets.serve.limits import Keys, Limits
from jaxnets.serve.rollout.options import Options, Pair
from jaxnets.serve.rollout.state import Bounds
from jaxnets.serve.source import Split
from tests.serve.fakes import FakePredictor, client_of, fake_app, image

OLD, NEW = "/v1/models/old", "/v1/models/new"
PETS = "/v1/models/pets"
ADMIN = {"x-api-key": "admin"}
ALL = Bounds(steps=(1.0,), window=0, requests=5, compare=0, latency=1e9)  # the candidate has every request at once


def shadowing(**options):
    return fake_app("old", "new", rollout=Options(shadows=[Pair.shadow("old=new")], spare=1.0), **options)


def trying(bounds=ALL, state=None, made=None, **options):
    """Returns an application whose name `pets` is answered by `old`, and as the bounds say by `new`."""
    rollout = Options(canaries=[Pair.canary("pets=old,new")], bounds=bounds, state=state, spare=1.0)
    return fake_app("old", "new", rollout=rollout, admin=Keys(["admin"]), made=made, **options)


def models_of(app):
    (found,) = [one.kwargs["models"] for one in app.user_middleware if "models" in one.kwargs]
    return found


def rollout_of(app, name="pets"):
    return models_of(app).rollouts.describe(name)["rollout"]


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def answers(client, count, name=PETS):
    """Returns the status and the model of so many answers."""
    found = [await client.post(f"{name}/predict", content=image()) for _ in range(count)]
    return [(one.status_code, one.json().get("model")) for one in found]


def broken(images):
    raise RuntimeError("broken")


def failing_later(predictor):
    """Has a fake fail from now on: it was opened before."""
    predictor.engine.probabilities = broken


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


# Who may let it take over


def test_without_admin_keys_nobody_may_and_ordinary_keys_do_not_suffice():
    async def body(app, key):
        async with client_of(app) as client:
            answer = await client.post(f"{PETS}/promote", headers={"x-api-key": key})
            return answer.status_code, answer.json()["error"]["message"]

    rollout = Options(canaries=[Pair.canary("pets=old,new")])
    closed, _ = fake_app("old", "new", rollout=rollout, keys=Keys(["user"]))
    assert asyncio.run(body(closed, "user"))[0] == 403
    assert "--admin-key-file" in asyncio.run(body(closed, "user"))[1]
    app, _ = fake_app("old", "new", rollout=rollout, keys=Keys(["user"]), admin=Keys(["admin"]))
    assert asyncio.run(body(app, "user"))[0] == 401
    app, _ = fake_app("old", "new", rollout=rollout, admin=Keys(["admin"]))
    assert asyncio.run(body(app, "other"))[0] == 401


@pytest.mark.parametrize("kind", ["split", "shadow", "canary"])
def test_promotion_and_the_way_back_work_for_each_kind_and_twice(kind):
    given = {
        "split": {"splits": [Split.parse("pets=old:0.5,new:0.5")]},
        "shadow": {"rollout": Options(shadows=[Pair.shadow("old=new")])},
        "canary": {"rollout": Options(canaries=[Pair.canary("pets=old,new")])},
    }[kind]
    app, _ = fake_app("old", "new", admin=Keys(["admin"]), **given)
    name = OLD if kind == "shadow" else PETS

    async def body():
        async with client_of(app) as client:
            for what, phase, model in (("promote", "promoted", "new"), ("rollback", "rolled back", "old")):
                first, again = [await client.post(f"{name}/{what}", headers=ADMIN) for _ in range(2)]
                assert (first.status_code, first.json()["phase"]) == (200, phase)
                assert again.json() == first.json()
                assert await answers(client, 8, name) == [(200, model)] * 8
            assert (await client.post(f"{name}/promote", headers=ADMIN)).json()["phase"] == "promoted"

    asyncio.run(body())


def test_a_candidate_that_a_bound_has_sent_back_is_not_promoted_until_it_is_tried_again():
    app, made = trying()
    works = made["new"].engine.probabilities
    failing_later(made["new"])

    async def body():
        async with client_of(app) as client:
            await answers(client, 6)
            await models_of(app).rollouts.poll()
            refused = await client.post(f"{PETS}/promote", headers=ADMIN)
            made["new"].engine.probabilities = works
            begun = await client.post(f"{PETS}/canary", headers=ADMIN)
            assert begun.json()["phase"] == "canary"
            await answers(client, 6)
            await models_of(app).rollouts.poll()
            return refused

    refused = asyncio.run(body())
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "rolled_back")
    assert rollout_of(app)["phase"] == "promoted"


def test_no_request_fails_while_models_change():
    app, made = trying(replace(ALL, steps=(0.3,)), limits=Limits(timeout=30, latency=10))
    for predictor in made.values():
        predictor.engine.seconds = 0.005

    async def body():
        found, enough = [], asyncio.Event()
        async with client_of(app) as client:

            async def ask_for_ever():
                while not enough.is_set():
                    found.extend(await answers(client, 1))

            asking = [asyncio.create_task(ask_for_ever()) for _ in range(8)]
            for what in ("promote", "rollback", "promote", "rollback", "promote"):
                await asyncio.sleep(0.05)
                changed = await client.post(f"{PETS}/{what}", headers=ADMIN)
                assert changed.status_code == 200
            enough.set()
            await asyncio.gather(*asking)
            return found, await answers(client, 3)

    found, last = asyncio.run(body())
    assert {status for status, _ in found} == {200}
    assert {model for _, model in found} == {"old", "new"}
    assert last == [(200, "new")] * 3


# A run that is brought in


@pytest.fixture
def runs(tmp_path):
    """A folder of runs, of which only their files' names count here, and what they are opened as."""
    made = {}
    for name in ("new", "newer", "other", "broken"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        for file in ("config.json", "model.json"):
            (folder / file).write_text("{}")
        made[str(folder)] = FakePredictor(7, **({"labels": ("cat", "dog")} if name == "other" else {}))
    del made[str(tmp_path / "runs" / "broken")]
    return tmp_path / "runs", made


def bringing(runs, bounds=ALL, state=None, **options):
    folder, made = runs
    rollout = Options(candidates=folder, bounds=bounds, state=state)
    return fake_app("pets", rollout=rollout, admin=Keys(["admin"]), made=made, **options)[0]


def brought(client, model, **more):
    return client.post(f"{PETS}/canary", headers=ADMIN, json={"model": str(model), **more})


def test_a_run_is_brought_in_tried_promoted_and_followed_by_another(runs):
    folder, _ = runs
    app = bringing(runs)

    async def body():
        async with client_of(app) as client:
            begun = await brought(client, folder / "new")
            assert (begun.status_code, begun.json()["candidate"], begun.json()["stable"]) == (200, "new", "pets")
            assert (await brought(client, "new")).json()["since"] == begun.json()["since"]
            busy = await brought(client, "newer")
            assert (busy.status_code, busy.json()["error"]["code"]) == (409, "on_trial")
            assert await answers(client, 6) == [(200, "new")] * 6
            await models_of(app).rollouts.poll()
            assert rollout_of(app)["phase"] == "promoted"
            again = await brought(client, "new")
            assert (again.status_code, again.json()["error"]["code"]) == (409, "has_taken_over")
            for model in ("newer", "new"):
                assert (await brought(client, model)).status_code == 200
                assert (await client.post(f"{PETS}/promote", headers=ADMIN)).json()["candidate"] == model
                await models_of(app).rollouts.poll()
            listed = (await client.get("/v1/models")).json()["models"]
            return [one["name"] for one in listed]

    assert asyncio.run(body()) == ["pets", "new", "newer"]


def test_what_no_name_speaks_of_any_more_is_closed(runs):
    app = bringing(runs)

    async def body():
        async with client_of(app) as client:
            await brought(client, "new")
            await client.post(f"{PETS}/rollback", headers=ADMIN)
            await brought(client, "newer")
            await models_of(app).rollouts.poll()
            assert (await client.post(f"{NEW}/predict", content=image())).status_code == 404
            return [one["name"] for one in (await client.get("/v1/models")).json()["models"]]

    assert asyncio.run(body()) == ["pets", "newer"]


def test_only_runs_below_the_folder_may_be_brought_in(runs, tmp_path):
    folder, _ = runs
    outside = tmp_path / "outside"
    outside.mkdir()
    for file in ("config.json", "model.json"):
        (outside / file).write_text("{}")
    (folder / "link").symlink_to(outside)
    (folder / "inner").mkdir()
    for file in ("config.json", "model.json"):
        (folder / "inner" / file).symlink_to(outside / file)
    (folder / "empty").mkdir()
    (folder / "loop").symlink_to(folder / "loop")
    app = bringing(runs)

    async def body():
        async with client_of(app) as client:
            for text in (
                outside, "../outside", folder / ".." / "outside", "link", folder / "link", "inner", "loop", folder, ".",
                "hf:owner/repo", "gs://bucket/run", "https://example.org/run", "package:x", "efficientnet_lite0", "/",
                "/etc/passwd", "new/config.json", "\0", "a" * 5000, "pets=new", "~",
            ):  # fmt: skip
                answer = await brought(client, text)
                assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_a_candidate"), text
                assert len(answer.json()["error"]["message"]) < 400
            for text, status, code in (("empty", 422, "no_run"), ("other", 422, "unfit"), ("broken", 422, "damaged")):
                answer = await brought(client, text)
                assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), text
            assert "2 classes, and alone 'cat', 'dog'" in (await brought(client, "other")).json()["error"]["message"]
            for called, status in (("pets", 409), ("a/b", 422), ("ok", 200)):
                assert (await brought(client, "new", name=called)).status_code == status
            return await answers(client, 3)

    assert asyncio.run(body()) == [(200, "ok")] * 3


def test_without_a_folder_no_run_is_brought_in():
    app, _ = fake_app("pets", admin=Keys(["admin"]))

    async def body():
        async with client_of(app) as client:
            return await brought(client, "runs/new"), await client.post(f"{PETS}/canary", headers=ADMIN)

    refused, empty = asyncio.run(body())
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "no_candidates")
    assert (empty.status_code, empty.json()["error"]["code"]) == (422, "no_candidate")


# Restarts, and several processes


def test_what_was_promoted_answers_after_a_restart(runs, tmp_path, caplog):
    folder, made = runs

    async def promoted(app):
        async with client_of(app) as client:
            await brought(client, "new")
            await client.post(f"{PETS}/promote", headers=ADMIN)

    async def asked(app):
        async with client_of(app) as client:
            return await answers(client, 3)

    asyncio.run(promoted(bringing(runs, state=tmp_path / "state")))
    assert asyncio.run(asked(bringing(runs, state=tmp_path / "state"))) == [(200, "new")] * 3
    kept = made.pop(str(folder / "new"))  # it was moved
    assert asyncio.run(asked(bringing(runs, state=tmp_path / "state"))) == [(200, "pets")] * 3
    assert "new at" in caplog.text
    made[str(folder / "new")] = kept
    app, _ = fake_app("pets", rollout=Options(state=tmp_path / "state"), made=made)  # without --candidates
    assert asyncio.run(asked(app)) == [(200, "pets")] * 3


def test_what_was_kept_of_another_command_line_is_forgotten(tmp_path, caplog):
    app, _ = trying(state=tmp_path)

    async def promoted():
        async with client_of(app) as client:
            await client.post(f"{PETS}/promote", headers=ADMIN)

    asyncio.run(promoted())
    assert rollout_of(trying(state=tmp_path)[0])["phase"] == "promoted"
    other = Options(canaries=[Pair.canary("pets=new,old")], state=tmp_path)
    assert rollout_of(fake_app("old", "new", rollout=other)[0])["phase"] == "canary"
    assert "of another command line, and forgotten" in caplog.text


def test_processes_agree(runs, tmp_path):
    first, second = (bringing(runs, replace(ALL, requests=12), state=tmp_path / "state") for _ in range(2))

    async def body():
        async with client_of(first) as one, client_of(second) as other:
            await brought(one, "new")
            assert await answers(other, 1) == [(200, "pets")]
            await models_of(second).rollouts.poll()
            for client in (one, other):  # neither has 12 by itself
                assert await answers(client, 6) == [(200, "new")] * 6
            for app in (first, second, first):
                await models_of(app).rollouts.poll()
            assert [rollout_of(app)["phase"] for app in (first, second)] == ["promoted"] * 2
            await one.post(f"{PETS}/rollback", headers=ADMIN)
            await models_of(second).rollouts.poll()
            assert await answers(other, 1) == [(200, "pets")]
            await brought(one, "newer")  # which the other has not seen yet
            assert (await other.post(f"{PETS}/promote", headers=ADMIN)).json()["phase"] == "promoted"
            return await answers(other, 1)

    assert asyncio.run(body()) == [(200, "newer")]


# Whatever comes


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
