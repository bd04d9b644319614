"""Applications of two fakes, of which one may take over from the other, and what is asked of them."""

import asyncio

from jaxnets.serve.limits import Keys
from jaxnets.serve.rollout.options import Options, Pair
from jaxnets.serve.rollout.state import Bounds
from tests.serve.fakes import FakePredictor, fake_app, image

OLD, NEW = "/v1/models/old", "/v1/models/new"
PETS = "/v1/models/pets"
ADMIN = {"x-api-key": "admin"}
ALL = Bounds(steps=(1.0,), window=0, requests=5, compare=0, latency=1e9)  # the candidate has every request at once


def shadowing(**options):
    """Returns an application whose model `old` is shadowed by `new`, and the predictors."""
    return fake_app("old", "new", rollout=Options(shadows=[Pair.shadow("old=new")], spare=1.0), **options)


def trying(bounds=ALL, state=None, made=None, **options):
    """Returns an application whose name `pets` is answered by `old`, and as the bounds say by `new`."""
    rollout = Options(canaries=[Pair.canary("pets=old,new")], bounds=bounds, state=state, spare=1.0)
    return fake_app("old", "new", rollout=rollout, admin=Keys(["admin"]), made=made, **options)


def models_of(app):
    """Returns what an application serves."""
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


def made_runs(tmp_path):
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
