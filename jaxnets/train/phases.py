"""The stretches of a run in which the same layers train at one size, and the way of its state from one to the next."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
from jax.sharding import Mesh

from jaxnets.train.mesh import state_shardings
from jaxnets.train.step import TrainState, TrainStep


@dataclass(frozen=True, kw_only=True)
class Phase:
    start: int  # steps done before its first
    fresh_state: Callable[[], TrainState]  # that a run would start with, had it no phase before
    step: TrainStep
    change: str = ""  # what is another than in the phase before it, for whoever watches


class Phases:
    """A run's phases, the first of which starts at 0; `split` as for `state_shardings`.

    What shape a state has follows from the steps done: after the last step of a phase it is still that phase's, and it
    grows right before the first step of the next.
    """

    def __init__(self, phases: Sequence[Phase], mesh: Mesh, *, split: bool) -> None:
        self._phases, self._mesh, self._split = phases, mesh, split
        self.starts = tuple(phase.start for phase in phases)

    def at(self, step: int) -> Phase:
        """Returns the phase of the step that follows `step` others."""
        return next(phase for phase in reversed(self._phases) if phase.start <= step)

    def before(self, step: int) -> Phase:
        """Returns the phase of the last of `step` steps, whose shape their state has."""
        return self.at(max(step - 1, 0))

    def like(self, phase: Phase) -> TrainState:
        """Returns shapes and shardings of a phase's states."""
        shapes = jax.eval_shape(phase.fresh_state)
        shardings = state_shardings(shapes, self._mesh, split=self._split)
        return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)

    def enter(self, state: TrainState, step: int) -> TrainState:
        """Returns the state after `step` steps as the next one takes it.

        What trains already keeps its moments, and what begins to has those of a fresh optimizer. All other arrays are
        those of `state`.
        """
        phase = self.at(step)
        if phase is self.before(step):
            return state
        like = self.like(phase).opt_state
        if _paths(like) == _paths(state.opt_state):  # no more trains
            return state
        shardings = jax.tree.map(lambda x: x.sharding, like)
        fresh = jax.jit(lambda: phase.fresh_state().opt_state, out_shardings=shardings)()
        kept = dict(jax.tree_util.tree_leaves_with_path(state.opt_state))
        grown = jax.tree_util.tree_map_with_path(lambda path, x: kept.get(path, x), fresh)
        return replace(state, opt_state=grown)


def _paths(tree: Any) -> list[Any]:
    return [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
