"""The forms that a rate takes over a run, as shares of its peak.

A shape maps a position to a share. Positions are counted in steps, or in whole epochs where the rate stays the same
within one; so are lengths, and the places at which something happens.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

Shape = Callable[[Any], Any]  # position -> share of the peak


def first_at(place: float) -> int:
    """Returns the first whole position at or after a place, which may be the rounded product of two numbers."""
    return math.ceil(place - 1e-6)


def constant() -> Shape:
    return lambda position: jnp.ones_like(position, float)


def cosine(length: float, final: float) -> Shape:
    """Returns half a cosine from 1 to `final` (Loshchilov & Hutter 2017, equation 5)."""
    return lambda position: final + (1 - final) * (1 + jnp.cos(jnp.pi * _share(position, length))) / 2


def linear(length: float, final: float) -> Shape:
    """Returns a straight line from 1 to `final`."""
    return lambda position: 1 - (1 - final) * _share(position, length)


def staircase(places: Sequence[int], factor: float) -> Shape:
    """Returns a share that is multiplied by `factor` at each of the places, from that position on."""
    shares = np.asarray([factor**drops for drops in range(len(places) + 1)])
    edges = np.asarray(places, np.int32)
    return lambda position: jnp.asarray(shares, float)[jnp.searchsorted(jnp.asarray(edges), position, side="right")]


def after(shape: Shape, start: float) -> Shape:
    """Returns a shape that begins at a position; before that it is what it begins with."""
    return lambda position: shape(jnp.maximum(position - start, 0))


def warmed_up(shape: Shape, length: float, start: float) -> Shape:
    """Returns a shape whose beginning is replaced by a straight line from `start` to 1."""
    if not length:
        return shape
    return lambda position: jnp.where(
        position < length, start + (1 - start) * _share(position, length), shape(position)
    )


def _share(position: Any, length: float) -> Any:
    return jnp.clip(position / max(length, 1e-9), 0, 1)
