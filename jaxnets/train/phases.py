"""The stretches of a run in which the same layers train at one size, and the way of its state from one to the next."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from jaxnets.models.family import Variables
from jaxnets.recipe.recipe import Recipe
from jaxnets.train.mesh import put, replicated, state_shardings
from jaxnets.train.step import TrainState, TrainStep

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Phase:
    start: int  # steps done before its first
    fresh_state: Callable[[], TrainState]  # that a run would start with, had it no phase before
    step: TrainStep
    change: str = ""  # what is another than in the phase before it, for whoever watches
    recipe: Recipe | None = None  # that its steps follow


class Phases:
    """A run's phases, the first of which starts at 0; `split` as for `state_shardings`, `teacher` as a state has it.

    What shape a state has follows from the steps done: after the last step of a phase it is still that phase's, and it
    grows right before the first step of the next.
    """

    def __init__(self, phases: Sequence[Phase], mesh: Mesh, *, split: bool, teacher: Variables | None = None) -> None:
        self._phases, self._mesh, self._split, self._teacher = phases, mesh, split, teacher
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
        like = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
        whole = replicated(self._mesh)
        teacher = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), self._teacher)
        return replace(like, teacher=teacher)

    def first(self) -> TrainState:
        """Returns the state before the first step, without a teacher."""
        phase = self.at(0)
        return self._made(phase.fresh_state, replace(self.like(phase), teacher=None))

    def first_without_variables(self) -> TrainState:
        """Returns the state before the first step with shapes and shardings in place of the variables.

        Where these come from elsewhere, none is drawn: a third of a second in place of four on a CPU.
        """
        like = self.like(self.at(0))
        step = put(np.zeros((), like.step.dtype), replicated(self._mesh))
        return replace(like, step=step, opt_state=self._fresh_opt_state(self.at(0)))

    def enter(self, state: TrainState, step: int) -> TrainState:
        """Returns the state after `step` steps as the next one takes it.

        What trains already keeps its moments, and what begins to has those of a fresh optimizer. All other arrays are
        those of `state`.
        """
        phase = self.at(step)
        if phase is self.before(step):
            return state
        if _paths(self.like(phase).opt_state) == _paths(state.opt_state):  # no more trains
            return state
        fresh = self._fresh_opt_state(phase)
        kept = dict(jax.tree_util.tree_leaves_with_path(state.opt_state))
        grown = jax.tree_util.tree_map_with_path(lambda path, x: kept.get(path, x), fresh)
        return replace(state, opt_state=grown)

    def _fresh_opt_state(self, phase: Phase) -> optax.OptState:
        return self._made(lambda: phase.fresh_state().opt_state, self.like(phase).opt_state)

    def _made(self, make: Callable[[], T], like: T) -> T:
        shardings = jax.tree.map(lambda x: x.sharding, like)
        # Run once, so quick to compile matters more than quick to run.
        options: dict[str, Any] = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
        return jax.jit(make, out_shardings=shardings, compiler_options=options)()


def _paths(tree: Any) -> list[Any]:
    return [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
