"""What a program computes from its weights alone, computed at once."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def compute(eqn: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Returns an equation's results where its inputs are all known."""
    if eqn.primitive.name in _NUMPY:
        return [np.asarray(_NUMPY[eqn.primitive.name](eqn.params, *inputs))]  # of two single numbers NumPy makes none
    with jax.ensure_compile_time_eval():
        results = eqn.primitive.bind(*inputs, **eqn.params)
    return [np.asarray(result) for result in (results if eqn.primitive.multiple_results else [results])]


def _spread(params: Any, x: np.ndarray) -> np.ndarray:
    shape = [1] * len(params["shape"])
    for own, axis in enumerate(params["broadcast_dimensions"]):
        shape[axis] = x.shape[own]
    return np.broadcast_to(x.reshape(shape), params["shape"])


# JAX would compile each of these for each shape.
_NUMPY: dict[str, Callable[..., np.ndarray]] = {
    "add": lambda params, a, b: a + b,
    "sub": lambda params, a, b: a - b,
    "mul": lambda params, a, b: a * b,
    "div": lambda params, a, b: a / b,
    "rsqrt": lambda params, a: (1 / np.sqrt(a)).astype(a.dtype),
    "convert_element_type": lambda params, a: a.astype(params["new_dtype"]),
    "reshape": lambda params, a: a.reshape(params["new_sizes"]),
    "broadcast_in_dim": _spread,
}
