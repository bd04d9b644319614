"""Convolution in the form that the platform runs fast; the values agree everywhere.

GPUs get XLA's convolution, a TPU too but for one case, and a CPU the forms of `jaxnets.models.cpu`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

import jax
from jax import lax
from jaxtyping import Array, Float

from jaxnets.models.conventions import DIMENSIONS, Padding, Pair
from jaxnets.models.cpu.conv import full
from jaxnets.models.cpu.depthwise import depthwise
from jaxnets.models.cpu.grouped import grouped

_plain_only: ContextVar[bool] = ContextVar("plain_only", default=False)


@contextmanager
def plain_convolutions() -> Iterator[None]:
    """Traces `conv2d` as XLA's convolution on every platform: for exporters, and where only shapes are asked for."""
    before = _plain_only.set(True)
    try:
        yield
    finally:
        _plain_only.reset(before)


def only_plain() -> bool:
    """Tells whether `plain_convolutions` is in force."""
    return _plain_only.get()


def conv2d(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "i j k f"],
    *,
    stride: Pair,
    padding: Padding,
    groups: int = 1,
) -> Float[Array, "b h2 w2 f"]:
    """Convolves `x` with `kernel` in the networks' sense, that is, without turning the kernel round.

    With `groups`, each share of the features sees its own share of the channels alone.
    """

    geometry = stride, padding, groups
    return _plain(x, kernel, *geometry) if only_plain() else _convolve(x, kernel, *geometry)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(x: Array, kernel: Array, stride: Pair, padding: Padding, groups: int) -> Array:
    forms = {name: partial(form, stride=stride, padding=padding, groups=groups) for name, form in _FORMS.items()}
    return lax.platform_dependent(x, kernel, **forms)


def _keeping(x: Array, kernel: Array, stride: Pair, padding: Padding, groups: int) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, kernel, stride, padding, groups), (x, kernel)


def _backward(
    stride: Pair, padding: Padding, groups: int, saved: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
    """Pulls back through each platform's form by itself, which JAX traces faster than the gradient of the choice."""

    def gradient(x: Array, kernel: Array, dy: Array, *, form: Form) -> tuple[Array, Array]:
        return jax.vjp(partial(form, stride=stride, padding=padding, groups=groups), x, kernel)[1](dy)

    return lax.platform_dependent(*saved, dy, **{name: partial(gradient, form=form) for name, form in _FORMS.items()})


_convolve.defvjp(_keeping, _backward)


def _cpu(x: Array, kernel: Array, stride: Pair, padding: Padding, groups: int) -> Array:
    if groups == 1:
        return full(x, kernel, stride, padding)
    if groups == x.shape[3] == kernel.shape[3]:
        return depthwise(x, kernel, stride, padding)
    return grouped(x, kernel, stride, padding, groups)


def _plain(x: Array, kernel: Array, stride: Pair, padding: Padding, groups: int = 1) -> Array:
    return lax.conv_general_dilated(
        x, kernel, stride, padding, dimension_numbers=DIMENSIONS, feature_group_count=groups
    )


def _tpu(x: Array, kernel: Array, stride: Pair, padding: Padding, groups: int) -> Array:
    """XLA's convolution; of a 1×1 kernel that skips pixels, of the pixels that are left, so that only they are read."""
    if kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0)):
        x, stride = x[:, :: stride[0], :: stride[1]], (1, 1)
    return _plain(x, kernel, stride, padding, groups)


Form = Callable[..., Array]
_FORMS: dict[str, Form] = {"cpu": _cpu, "tpu": _tpu, "default": _plain}  # by platform
