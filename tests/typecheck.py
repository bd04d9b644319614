"""What checks the annotations of functions while tests run."""

import functools
import operator
import types
import typing
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from beartype import BeartypeConf, beartype

_TREES = ("TrainState.__init__",)  # JAX fills them with shapes and shardings too

_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as in the language's own rules


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Checks a function's annotations at each call; where it wants an array of JAX's, NumPy's of that shape will do."""
    if function.__qualname__ in _TREES:
        return function
    hints = {name: _widened(hint) for name, hint in getattr(function, "__annotations__", {}).items()}
    if hints:
        function.__annotations__ = hints
    return _beartype(function)


def _widened(hint: Any) -> Any:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return functools.reduce(operator.or_, map(_widened, typing.get_args(hint)))
    if getattr(hint, "array_type", None) is jax.Array:
        return hint | hint.dtype[np.ndarray, hint.dim_str]
    if isinstance(hint, types.GenericAlias) and hint.__origin__ in (tuple, list, dict):
        return hint.__origin__[tuple(map(_widened, hint.__args__))]
    return jax.Array | np.ndarray if hint is jax.Array else hint
