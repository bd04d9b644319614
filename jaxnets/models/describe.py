"""How large a model is: its parameters, and the multiply-adds that an image costs. Nothing is computed for it."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxnets.models.conventions import same_padding, torch_padding
from jaxnets.models.layers import BatchNorm, Conv, Dense, Head


class Size(NamedTuple):
    parameters: int  # numbers that training changes; running statistics are none of them
    multiply_adds: int


def parameters(model: nn.Module, channels: int = 3) -> int:
    """Returns how many numbers training changes, for images of `channels`."""
    return size(model, 64, 64, channels).parameters


def multiply_adds(model: nn.Module, height: int, width: int, channels: int = 3) -> int:
    """Returns the multiplications, each with its addition, in the convolutions and dense layers for one image.

    This is what papers call FLOPs or multiply-adds: output places · kernel · input channels / groups · features. Norms,
    activations, pooling and the products with the gates of squeeze-and-excitation are left out, as they are there.
    """
    return size(model, height, width, channels).multiply_adds


def size(model: nn.Module, height: int, width: int, channels: int = 3) -> Size:
    """Returns both numbers for one image, for a network whose parameters are all in the layers of `layers.py`.

    Each of those layers is replaced by its shape while the network is traced: tracing what they do takes a hundred
    times longer.
    """
    sizes: list[Size] = []

    def count(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        layer = context.module
        if not isinstance(layer, Conv | BatchNorm | Dense | Head):
            return call(*args, **kwargs)
        own, shape = _layer(layer, args[0].shape)
        sizes.append(own)
        norm = args[1] if len(args) > 1 else None
        return jnp.zeros(shape) if norm is None else norm(jnp.zeros(shape))

    with nn.intercept_methods(count):
        image = jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)
        jax.eval_shape(lambda x: model.apply({}, x, train=False), image)
    return Size(sum(own.parameters for own in sizes), sum(own.multiply_adds for own in sizes))


def _layer(layer: nn.Module, shape: tuple[int, ...]) -> tuple[Size, tuple[int, ...]]:
    """Returns a layer's size and the shape that it makes of an input's."""
    channels = shape[-1]
    if isinstance(layer, Conv):
        same = layer.padding == "same"
        pads = same_padding(shape[1:3], layer.kernel, layer.stride) if same else torch_padding(layer.kernel)
        places = tuple(
            (n + low + high - k) // layer.stride + 1
            for n, k, (low, high) in zip(shape[1:3], layer.kernel, pads, strict=True)
        )
        weights = math.prod(layer.kernel) * channels // layer.groups * layer.features
        return Size(weights, math.prod(places) * weights), (shape[0], *places, layer.features)
    if isinstance(layer, BatchNorm):
        return Size(2 * channels, 0), shape
    features = layer.num_classes if isinstance(layer, Head) else layer.features
    return Size((channels + 1) * features, channels * features), (shape[0], features)
