"""What the operator may say: this one takes over, that one comes back, here is a candidate."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jaxnets.errors import UserError, quoted
from jaxnets.serve.limits import NAME, Refused
from jaxnets.serve.rollout.alike import check_alike
from jaxnets.serve.rollout.candidates import allowed
from jaxnets.serve.rollout.rollouts import Rollouts
from jaxnets.serve.rollout.state import Place, State
from jaxnets.serve.rollout.store import States
from jaxnets.serve.served import ServedModel

_log = logging.getLogger(__name__)


async def promote(rollouts: Rollouts, name: str) -> State:
    """Gives all requests of a name to its candidate; returns the state.

    Raises:
        Refused: 404, without a candidate; 409, if the candidate was sent back by a bound; 503, if it is not open here.
    """

    def promoted(state: State) -> State:
        if state.phase == "promoted":
            return state
        if state.phase == "rolled back" and state.bound != "asked":
            raise Refused(
                409, "rolled_back", f"{state.candidate.name} was sent back ({state.reason}): begin anew with …/canary"
            )
        if rollouts.places.find(state.candidate) is None:
            raise Refused(
                503,
                "not_open",
                f"{state.candidate.name} is not open in this process: its log says why",
                {"Retry-After": "5"},
            )
        return state.moved("promoted", time.time())

    await rollouts.poll()  # another process may have brought it in
    return await _changed(rollouts, name, promoted)


async def roll_back(rollouts: Rollouts, name: str) -> State:
    """Gives all requests of a name to its old model; returns the state.

    Raises:
        Refused: 404, if it has no candidate.
    """

    def back(state: State) -> State:
        return state if state.phase == "rolled back" else state.back("asked", "asked for", time.time())

    return await _changed(rollouts, name, back)


async def begin_canary(rollouts: Rollouts, name: str, model: str | None, called: str | None) -> State:
    """Begins to give a share of a name's requests to a candidate; returns the state.

    Args:
        rollouts: that know the name.
        name: that is asked.
        model: a run to bring in; None: the candidate that the name has.
        called: what the run is to be called; None: as its folder.

    Raises:
        Refused: if there is none such, it may not be brought in, or another one is on trial.
    """
    if name in rollouts.models.splits:
        raise Refused(409, "split", f"the shares of {name} are those of --split: promote it, or serve it by --canary")
    if name not in rollouts.models.names:
        raise _no_model(rollouts, name)
    await rollouts.poll()
    if rollouts.places.loading.locked():
        raise Refused(409, "loading", "another candidate is being opened: try again later", {"Retry-After": "5"})
    async with rollouts.places.loading:
        if model is None:
            place = _known(rollouts, name)
        else:
            place = await _brought(rollouts, name, model, called)

        def begun(states: States) -> States:
            stable, given = rollouts.places.place(rollouts.places.base(name).name), rollouts.places.given(name) or ""
            fresh = State(kind="canary", phase="canary", stable=stable, candidate=place, given=given, since=time.time())
            if (state := states.get(name)) is None:
                return {**states, name: fresh}
            if _on_trial(state, place):
                return states
            stable = state.answers
            if stable == place:
                raise Refused(409, "has_taken_over", f"{place.name} answers {name} already: bring in another run")
            changed = replace(state, kind="canary", stable=stable, candidate=place)
            return {**states, name: changed.moved("canary", time.time(), step=0, usual=fresh.usual)}

        await rollouts.change(begun)
    return rollouts.states[name]


def _known(rollouts: Rollouts, name: str) -> Place:
    """Returns the candidate that a name has."""
    if (state := rollouts.states.get(name)) is None:
        raise Refused(
            422, "no_candidate", f'{name} has no candidate: bring one in with {{"model": "runs/new"}} as the body'
        )
    if rollouts.places.find(state.candidate) is None:
        raise Refused(409, "not_open", f"{state.candidate.name} is open no longer: bring it in anew")
    return state.candidate


async def _brought(rollouts: Rollouts, name: str, model: str, called: str | None) -> Place:
    """Opens a run, unless it is open, and returns its place."""
    path = await asyncio.to_thread(allowed, model, rollouts.options.candidates)
    called = called or path.name
    if not NAME.fullmatch(called):
        raise Refused(
            422,
            "bad_name",
            f"a name has letters, digits, '.', '_' and '-', found {quoted(called)}: give another one as \"name\"",
        )
    state = rollouts.states.get(name)
    stable = rollouts.models_of(name)[0] if state is not None else rollouts.places.base(name)
    if state is not None and state.phase == "canary" and state.candidate.path != str(path):
        raise Refused(
            409, "on_trial", f"{state.candidate.name} is on trial for {name}: promote it or roll it back first"
        )
    if (open_ := rollouts.models.served.get(called)) is not None and open_.source.path == str(path):
        _check(stable, open_)
        return rollouts.places.place(called)
    if called in rollouts.models.names:
        raise Refused(409, "name_taken", f'{quoted(called)} is the name of something else: give another one as "name"')
    place = Place(name=called, path=str(path), checkpoint="best")
    try:
        served = await asyncio.to_thread(rollouts.places.bring, place, stable)
    except Refused:
        raise
    except UserError as error:
        raise Refused(422, "unfit", str(error)) from error
    except Exception as error:  # whatever a damaged run leads to
        _log.warning("%s cannot be opened", path, exc_info=error)
        raise Refused(422, "damaged", f"{quoted(model)} cannot be opened: the service's log says why") from error
    rollouts.places.add(served)
    return rollouts.places.place(called)


def _check(stable: ServedModel, candidate: ServedModel) -> None:
    try:
        check_alike(stable, candidate)
    except UserError as error:
        raise Refused(422, "unfit", str(error)) from error


def _on_trial(state: State, place: Place) -> bool:
    """Tells whether a candidate is on trial already; refuses another one."""
    if state.phase != "canary":
        return False
    if state.candidate != place:
        raise Refused(409, "on_trial", f"{state.candidate.name} is on trial: promote it or roll it back first")
    return True


async def _changed(rollouts: Rollouts, name: str, function: Callable[[State], State]) -> State:
    def changed(states: States) -> States:
        if (state := states.get(name)) is None:
            state = _of_split(rollouts, name)
        return {**states, name: function(state)}

    await rollouts.change(changed)
    return rollouts.states[name]


def _of_split(rollouts: Rollouts, name: str) -> State:
    """Returns the state of a name that nobody has spoken of yet: the last model of a split is its candidate."""
    if name not in rollouts.models.names:
        raise _no_model(rollouts, name)
    if name not in rollouts.models.splits:
        raise Refused(404, "no_candidate", f"{name} has no candidate: begin with POST /v1/models/{name}/canary")
    models = list(rollouts.models.splits[name].shares)
    if len(models) < 2:
        raise Refused(404, "no_candidate", f"{name} has one model, {models[0]}, and no candidate")
    places: dict[str, Any] = {key: rollouts.places.place(models[i]) for key, i in (("stable", 0), ("candidate", -1))}
    given = rollouts.places.given(name) or ""
    return State(kind="split", phase="split", given=given, since=time.time(), **places)


def _no_model(rollouts: Rollouts, name: str) -> Refused:
    served = ", ".join(rollouts.models.names)
    return Refused(404, "no_such_model", f"there is no model {quoted(name)}: GET /v1/models lists {served}")
