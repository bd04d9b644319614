"""Who may let a candidate take over, and bring one in; restarts, and several processes."""

import asyncio
from dataclasses import replace

import pytest

from jaxnets.serve.limits import Keys, Limits
from jaxnets.serve.rollout.options import Options, Pair
from jaxnets.serve.source import Split
from tests.serve.fakes import client_of, fake_app, image
from tests.serve.rolling import (
    ADMIN,
    ALL,
    NEW,
    OLD,
    PETS,
    answers,
    bringing,
    brought,
    failing_later,
    made_runs,
    models_of,
    rollout_of,
    trying,
)

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
    return made_runs(tmp_path)


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
