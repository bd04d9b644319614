"""The models that states speak of: those of the command line, and those that were brought in since."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from jaxnets.errors import UserError
from jaxnets.serve.rollout.alike import check_alike
from jaxnets.serve.rollout.candidates import allowed
from jaxnets.serve.rollout.options import Options, Pair
from jaxnets.serve.rollout.state import Place, State
from jaxnets.serve.rollout.store import States
from jaxnets.serve.served import ServedModel
from jaxnets.serve.source import Source

if TYPE_CHECKING:
    from jaxnets.serve.models import Models

_log = logging.getLogger(__name__)

_AGAIN = 60.0  # seconds until a model that could not be opened is tried again


class Places:
    """Finds the models of states, and opens and closes what was brought in."""

    def __init__(self, models: "Models", options: Options) -> None:
        self.loading = asyncio.Lock()  # one at a time
        self._models = models
        self._options = options
        self._pairs: dict[str, tuple[Literal["shadow", "canary"], Pair]] = {}
        self._pairs |= {pair.name: ("shadow", pair) for pair in options.shadows}
        self._pairs |= {pair.name: ("canary", pair) for pair in options.canaries}
        self._brought: set[str] = set()  # names of models that the command line does not have
        self._failed: dict[Place, float] = {}  # when to try it again
        for _, pair in self._pairs.values():
            check_alike(models.served[pair.stable], models.served[pair.candidate])

    def place(self, name: str) -> Place:
        source = self._models.served[name].source
        return Place(name=name, path=source.path, checkpoint=source.checkpoint)

    def find(self, place: Place) -> ServedModel | None:
        """Returns the model that is meant, if this process has it."""
        served = self._models.served.get(place.name)
        return served if served is not None and served.source.path == place.path else None

    def base(self, name: str) -> ServedModel:
        """Returns the model that answers a name by the command line alone."""
        if name in self._pairs:
            name = self._pairs[name][1].stable
        elif name in self._models.splits:
            name = next(iter(self._models.splits[name].shares))
        return self._models.served[name]

    def given(self, name: str) -> str | None:
        """Returns what the command line says of a name; None where it does not have it."""
        kind, models = "model", [name]
        if name in self._pairs:
            pair = self._pairs[name][1]
            kind, models = self._pairs[name][0], [pair.stable, pair.candidate]
        elif name in self._models.splits:
            kind, models = "split", list(self._models.splits[name].shares)
        if not all(model in self._models.served for model in models):
            return None
        return f"{kind} {','.join(f'{model}={self._models.served[model].source.path}' for model in models)}"

    def begin(self, states: States) -> States:
        """Returns the states that a service begins with: those that were kept, if they are of its command line."""
        found = {}
        for name, state in states.items():
            if state.given == self.given(name):
                found[name] = state
            else:
                _log.warning("%s: what --state says of it is of another command line, and forgotten", name)
        for name, (kind, pair) in self._pairs.items():
            if name not in found:
                found[name] = State(
                    kind=kind,
                    phase=kind,
                    stable=self.place(pair.stable),
                    candidate=self.place(pair.candidate),
                    given=self.given(name) or "",
                    since=time.time(),
                )
        return found

    def bring(self, place: Place, stable: ServedModel) -> ServedModel:
        """Opens a run beside what is served; in a thread, as it takes its time.

        Raises:
            UserError: if it cannot be opened, or has other classes than the old model.
            Refused: if it is none that may be.
        """
        path = allowed(place.path, self._options.candidates)
        served = self._models.open(Source(name=place.name, path=str(path), checkpoint=place.checkpoint))
        try:
            check_alike(stable, served)
        except UserError:
            served.end()
            raise
        # What was judged is what goes on: a newer checkpoint would be another candidate.
        step = served.current.predictor.step
        served.source = replace(served.source, checkpoint=place.checkpoint if step is None else step)
        return served

    def add(self, served: ServedModel) -> None:
        """Serves what was brought in."""
        self._models.served[served.name] = served
        self._brought.add(served.name)

    def open_now(self, states: Mapping[str, State]) -> None:
        """Opens what was brought in before a restart; what cannot be opened is said, and the old model answers."""
        for name, place in self._wanted(states):
            if served := self._try(name, place):
                self.add(served)

    async def follow(self, states: Mapping[str, State]) -> None:
        """Opens what another process has brought in, and closes what no state speaks of any more."""
        for name, place in self._wanted(states):
            async with self.loading:
                if self.find(place) is None and (served := await asyncio.to_thread(self._try, name, place)):
                    self.add(served)
        spoken_of = {place.name for state in states.values() for place in (state.stable, state.candidate)}
        if not self.loading.locked():
            for name in self._brought - spoken_of:
                self._brought.discard(name)
                self._models.remove(name)

    def _wanted(self, states: Mapping[str, State]) -> list[tuple[str, Place]]:
        now = time.monotonic()
        return [
            (name, place)
            for name, state in states.items()
            for place in (state.stable, state.candidate)
            if self.find(place) is None
            and not (state.phase == "rolled back" and place == state.candidate)
            and self._failed.get(place, now) <= now
        ]

    def _try(self, name: str, place: Place) -> ServedModel | None:
        try:
            if place.name in self._models.served:
                raise UserError(f"another model has the name {place.name}: give it another one")
            served = self.bring(place, self.base(name))
        except Exception as error:  # whatever a run that was moved or damaged since leads to
            _log.warning("%s: %s at %s is not there, others answer: %s", name, place.name, place.path, error)
            self._failed[place] = time.monotonic() + _AGAIN
            return None
        self._failed.pop(place, None)
        return served
