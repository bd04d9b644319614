"""Compiling is what costs where arrays are small."""

from collections.abc import Callable
from typing import Any

import jax


def quick(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Returns `jax.jit(function, **options)`, whose program the compiler does not optimise."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0}, **options)
