"""Optimizers made of others: side by side on different parameters, or added up on the same."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from jaxnets.recipe.freeze import join


def apart(
    own: Mapping[str, optax.GradientTransformation], split: Callable[[Any], Mapping[str, Any]]
) -> optax.GradientTransformation:
    """Returns an optimizer that gives each set of parameters to one of its own; its state is a dict of theirs.

    `split` takes a tree of parameters to those of each set by its name; sets that are empty are left out.
    """

    def init(params: optax.Params) -> dict[str, Any]:
        return {name: own[name].init(some) for name, some in split(params).items()}

    def update(
        updates: optax.Updates, state: dict[str, Any], params: optax.Params | None = None
    ) -> tuple[optax.Updates, dict[str, Any]]:
        theirs = {} if params is None else split(params)
        whole: Any = {}
        after = {}
        for name, some in split(updates).items():
            changed, after[name] = own[name].update(some, state[name], theirs.get(name))
            whole = join(whole, changed)
        return whole, after

    return optax.GradientTransformation(init, update)


def added(first: optax.GradientTransformation, second: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns an optimizer whose updates are the sums of those of two that see the same gradient."""

    def init(params: optax.Params) -> tuple[Any, Any]:
        return first.init(params), second.init(params)

    def update(
        updates: optax.Updates, state: tuple[Any, Any], params: optax.Params | None = None
    ) -> tuple[optax.Updates, tuple[Any, Any]]:
        one, one_state = first.update(updates, state[0], params)
        two, two_state = second.update(updates, state[1], params)
        return jax.tree.map(lambda a, b: a + b, one, two), (one_state, two_state)

    return optax.GradientTransformation(init, update)
