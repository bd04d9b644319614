"""Functions that stay one step of the programs they are part of, so that an exporter can write each as one node."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import jax

PREFIX = "jaxnets_"  # of their names in a program, where other libraries have functions of the same names

_F = TypeVar("_F", bound=Callable[..., Any])


def one_step(function: _F) -> _F:
    """Returns a function of arrays that a program (jaxpr) calls by its name, with `PREFIX` before it.

    XLA puts what it does in place of the call, so that it costs nothing when it runs.
    """

    @wraps(function)
    def step(*arguments: Any) -> Any:
        return function(*arguments)

    step.__name__ = PREFIX + function.__name__
    return cast(_F, jax.jit(step))
