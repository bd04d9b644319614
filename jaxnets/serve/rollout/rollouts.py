"""Which model answers a name that has a candidate, what is counted of both, and what follows for the next request."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from starlette.requests import ClientDisconnect

from jaxnets.serve.images import Upload
from jaxnets.serve.limits import Limits, Refused
from jaxnets.serve.rollout.copier import Copier
from jaxnets.serve.rollout.counts import Counts
from jaxnets.serve.rollout.meters import RolloutMeters
from jaxnets.serve.rollout.options import Options
from jaxnets.serve.rollout.places import Places
from jaxnets.serve.rollout.reply import Copy, Reply
from jaxnets.serve.rollout.state import State, counted, judged, missing
from jaxnets.serve.rollout.store import States, Store
from jaxnets.serve.served import ServedModel

if TYPE_CHECKING:
    from jaxnets.serve.models import Models

_log = logging.getLogger(__name__)

_POLL = 1.0  # seconds until what one process has decided holds in the others
_PATIENCE = 0.5  # of the timeout that a candidate may take: the rest is the old model's

Ask = Callable[[ServedModel, Limits], Awaitable[Reply]]
Which = Literal["stable", "candidate"]


class Rollouts:
    """The names between two models.

    Args:
        models: that are served.
        options: what the command line says.
        seed: of the draws that share requests out.

    Raises:
        UserError: if a candidate has other classes than the old model, or what was kept of an earlier service cannot
            be read.
    """

    def __init__(self, models: "Models", options: Options, seed: int | None = None) -> None:
        self.models, self.options = models, options
        self.places = Places(models, options)
        self._random = random.Random(seed)
        self._meters = RolloutMeters(models.meters.registry)
        self._counts: dict[tuple[str, int], Counts] = {}  # of this process since the last poll, by name and epoch
        self._copier = Copier(models.limits, models.idle, options.spare, self._heard, self._dropped, models.recorder)
        self._store = Store(options.state)
        self._changing = asyncio.Lock()
        self._follower: asyncio.Task[None] | None = None
        self.states: States = {}
        self.take(self._store.change(self.places.begin))
        self.places.open_now(self.states)

    @property
    def names(self) -> list[str]:
        """Names that are no models' own."""
        return [pair.name for pair in self.options.canaries if pair.name not in self.models.served]

    def models_of(self, name: str) -> list[ServedModel]:
        """Returns the models that requests to a name go to now, of two the old one first; none without a state.

        A model that is to be, and is not there yet, is not among them.
        """
        state = self.states.get(name)
        if state is None or state.phase == "split":
            return []
        stable, candidate = self._pair(name, state)
        if candidate is None or not (share := state.share(self.options.bounds)):
            return [stable]
        return [candidate] if share == 1 else [stable, candidate]

    async def answer(self, name: str, served: ServedModel, ask: Ask, uploads: Sequence[Upload]) -> Reply:
        """Returns the answer to a request: of `served`, or as the name's state has it.

        While a candidate is on trial, the old model answers what the candidate fails at.
        """
        state = self.states.get(name)
        if state is None or state.phase == "split":
            return await ask(served, self.models.limits)
        stable, candidate = self._pair(name, state)
        drawn = candidate is not None and self._random.random() < state.share(self.options.bounds)
        if candidate is None or not drawn:
            reply, other = await self._ask("stable", stable, name, state, ask), candidate
        elif state.phase == "promoted":
            return await self._ask("candidate", candidate, name, state, ask)
        else:
            reply, other = await self._try(candidate, stable, name, state, ask), stable
            if reply.loaded is stable.current:
                return reply
        asked = {"shadow": 1.0, "canary": self.options.bounds.compare}.get(state.phase, 0.0)
        if other is not None and self._random.random() < asked:
            self._copier.offer(Copy(name=name, epoch=state.epoch, other=other, uploads=uploads, reply=reply))
        return reply

    async def _try(self, candidate: ServedModel, stable: ServedModel, name: str, state: State, ask: Ask) -> Reply:
        limits, start = self.models.limits, time.monotonic()
        hurried = replace(limits, timeout=_PATIENCE * limits.timeout)
        try:
            return await self._ask("candidate", candidate, name, state, ask, hurried)
        except ClientDisconnect:
            raise
        except Exception as error:  # whatever a new model leads to
            refused = error if isinstance(error, Refused) else None
            if refused and refused.status < 500:
                raise
            if not refused:
                _log.warning("%s: %s failed, %s answers instead: %r", name, candidate.name, stable.name, error)
            left = limits.timeout - (time.monotonic() - start)
            reply = await ask(stable, replace(limits, timeout=max(left, hurried.timeout / 2)))
            if refused and refused.code == "overloaded":  # and the old model is not
                self._note("candidate", candidate, name, state, None)
            return reply

    async def _ask(
        self, which: Which, served: ServedModel, name: str, state: State, ask: Ask, limits: Limits | None = None
    ) -> Reply:
        """Asks a model and counts it: as a failure whatever is neither the client's doing nor an overload."""
        try:
            reply = await ask(served, limits or self.models.limits)
        except ClientDisconnect:
            raise
        except Exception as error:
            if not isinstance(error, Refused) or (error.status >= 500 and error.code != "overloaded"):
                self._note(which, served, name, state, None)
            raise
        self._note(which, served, name, state, reply.seconds)
        return reply

    def _note(self, which: Which, served: ServedModel, name: str, state: State, seconds: float | None) -> None:
        getattr(self._of(name, state.epoch), which).note(seconds)
        self._meters.answered(name, served.name, seconds)

    def _heard(self, copy: Copy, seconds: float | None, agrees: bool) -> None:
        counts = self._of(copy.name, copy.epoch)
        counts.copies.note(seconds)
        counts.disagreed += seconds is not None and not agrees
        self._meters.copied(copy.name, copy.other.name, seconds, agrees=agrees)

    def _dropped(self, copy: Copy) -> None:
        self._of(copy.name, copy.epoch).dropped += 1
        self._meters.dropped(copy.name, copy.other.name)

    def _of(self, name: str, epoch: int) -> Counts:
        return self._counts.setdefault((name, epoch), Counts())

    def _pair(self, name: str, state: State) -> tuple[ServedModel, ServedModel | None]:
        """Returns the old model, or what stands in for it where it could not be opened again, and the candidate."""
        return self.places.find(state.stable) or self.places.base(name), self.places.find(state.candidate)

    def describe(self, name: str) -> dict[str, Any]:
        """Returns what GET /v1/models says of a name's two models; nothing where it has one."""
        state = self.states.get(name)
        return {} if state is None else {"rollout": self.shown(state)}

    def shown(self, state: State) -> dict[str, Any]:
        bounds, counts = self.options.bounds, state.counts
        found: dict[str, Any] = {
            "kind": state.kind,
            "phase": state.phase,
            "stable": state.stable.name,
            "candidate": state.candidate.name,
            "ready": self.places.find(state.candidate) is not None,  # in this process
            "share": None if state.phase == "split" else state.share(bounds),
            "since": state.since,
            "bound": state.bound,
            "reason": state.reason,
            "answered": {"stable": counts.stable.to_json(), "candidate": counts.candidate.to_json()},
            "copies": {
                **counts.copies.to_json(),
                "dropped": counts.dropped,
                "disagreed": counts.disagreed,
                "disagreement": counts.disagreement,
            },
        }
        if state.phase == "canary":
            found["step"] = f"{state.step + 1} of {len(bounds.steps)}"
            found["waits_for"] = missing(state, bounds, time.time())
        return found

    async def change(self, function: Callable[[States], States]) -> None:
        """Changes the states, in all processes that share them: in this one at once."""
        async with self._changing:  # or an older answer of the store could come after a newer one
            self.take(await asyncio.to_thread(self._store.change, function))

    def take(self, states: Mapping[str, State]) -> None:
        """Goes by these states from now on."""
        for name, state in states.items():
            before = self.states.get(name)
            if before is None or before.epoch != state.epoch:
                _log.log(logging.WARNING if state.bound else logging.INFO, "%s: %s", name, self._said(state))
            self._meters.show(name, state, self.options.bounds)
        self.states = dict(states)

    def _said(self, state: State) -> str:
        if state.phase == "rolled back":
            return f"{state.candidate.name} goes back to 0 %, {state.stable.name} answers all: {state.reason}"
        share = (
            "" if state.phase == "split" else f", {state.candidate.name} answers {state.share(self.options.bounds):.0%}"
        )
        return f"{state.phase}{share}"

    async def poll(self) -> None:
        """Adds what this process has counted, sees what follows, and opens or closes models for it."""
        counts, self._counts = self._counts, {}
        await self.change(partial(self._judge, counts))
        await self.places.follow(self.states)

    def _judge(self, counts: Mapping[tuple[str, int], Counts], states: States) -> States:
        found, now = dict(states), time.time()
        for (name, epoch), more in counts.items():
            if name in found:
                found[name] = counted(found[name], more, epoch)
        return {name: judged(state, self.options.bounds, now) for name, state in found.items()}

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_POLL)
            if not self.states and self.options.state is None:
                continue
            try:
                await self.poll()
            except Exception:  # of a poll: what holds goes on
                _log.exception("how far models have taken over could not be seen")

    def start(self) -> None:
        self._copier.start()
        self._follower = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Keeps what was counted, and ends."""
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        await self._copier.close()
        if self.states:
            counts, self._counts = self._counts, {}
            await self.change(partial(self._judge, counts))
