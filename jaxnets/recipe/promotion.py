"""Where another library mixes dtypes."""

import functools
from collections.abc import Callable
from typing import Any

import jax


def promoting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Runs a function under JAX's usual promotion: optax's schedules and Adam mix floats and a count of steps.

    So a training runs where promotion is strict too, and what is mixed elsewhere is found there.
    """

    @functools.wraps(function)
    def promoted(*args: Any, **kwargs: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return promoted
