"""The numbers that 8 bits have, as ONNX's QuantizeLinear rounds to them, and gradients that pass through.

Activations are uint8 with one scale and one zero point for a whole array; weights int8, symmetric, with a scale for
each feature; biases int32 at the scale of the products that they are added to (Jacob et al. 2018, section 2.1).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnets.models.steps import one_step

_TINY = 1e-12  # the least scale: of what is always zero
_BIAS_STEPS = 2.0**23  # that a bias may have at most, so that float32 holds each of them


class Grid(NamedTuple):
    """The 256 numbers (q − zero) · scale with q = 0 … 255."""

    scale: Float[Array, ""]
    zero: Float[Array, ""]  # a whole number


def grid_of(low_and_high: Float[Array, " 2"], steps: int = 255) -> Grid:
    """Returns the grid that covers a range in so many steps; 0, which padding and ReLU need, is one of its numbers."""
    low, high = jnp.minimum(low_and_high[0], 0), jnp.maximum(low_and_high[1], 0)
    scale = jnp.maximum((high - low) / steps, _TINY)
    return Grid(scale, jnp.clip(jnp.round(-low / scale), 0, 255))


@jax.custom_vjp
def on_grid(x: Float[Array, "..."], scale: Float[Array, ""], zero: Float[Array, ""]) -> Float[Array, "..."]:
    """Returns the nearest numbers of a grid, halves to even; what lies beyond it becomes its end.

    The gradient passes where x lies within the grid, as if nothing had been rounded.
    """
    return quantise(x, scale, zero)


@one_step
def quantise(x: Array, scale: Array, zero: Array) -> Array:
    return (jnp.clip(jnp.round(x / scale) + zero, 0, 255) - zero) * scale


def _keeping(x: Array, scale: Array, zero: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return on_grid(x, scale, zero), (x, scale, zero)


def _backward(saved: tuple[Array, Array, Array], dy: Array) -> tuple[Array, Array, Array]:
    x, scale, zero = saved
    within = (x >= -zero * scale) & (x <= (255 - zero) * scale)
    return jnp.where(within, dy, jnp.zeros_like(dy)), jnp.zeros_like(scale), jnp.zeros_like(zero)


on_grid.defvjp(_keeping, _backward)


def kernel_and_bias(
    kernel: Float[Array, "... f"], bias: Float[Array, " f"] | None, scale: Float[Array, ""]
) -> tuple[Float[Array, "... f"], Float[Array, " f"] | None]:
    """Returns weights and bias as 8 and 32 bits have them, of a layer whose input has the given scale.

    The gradient passes as if nothing had been rounded.
    """
    steps = jnp.abs(kernel).max(tuple(range(kernel.ndim - 1))) / 127
    if bias is not None:  # whose own steps are finer by the input's scale, and have to be in reach
        steps = jnp.maximum(steps, jnp.abs(bias) / (scale * _BIAS_STEPS))
    steps = jax.lax.stop_gradient(jnp.maximum(steps, _TINY))
    return _rounded_kernel(kernel, steps), None if bias is None else _rounded_bias(bias, scale * steps)


@jax.custom_vjp
def _rounded_kernel(kernel: Array, steps: Array) -> Array:
    return quantise_kernel(kernel, steps)


@one_step
def quantise_kernel(kernel: Array, steps: Array) -> Array:
    return jnp.clip(jnp.round(kernel / steps), -127, 127) * steps


_rounded_kernel.defvjp(
    lambda kernel, steps: (_rounded_kernel(kernel, steps), steps), lambda steps, dy: (dy, jnp.zeros_like(steps))
)


@jax.custom_vjp
def _rounded_bias(bias: Array, steps: Array) -> Array:
    return jnp.round(bias / steps) * steps


_rounded_bias.defvjp(
    lambda bias, steps: (_rounded_bias(bias, steps), steps), lambda steps, dy: (dy, jnp.zeros_like(steps))
)
