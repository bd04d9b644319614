"""What a model is, from tracing it alone: its parameters, the multiply-adds that an image costs, its norms."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.errors import FlaxError
from jax.extend.core import ClosedJaxpr, Jaxpr

from jaxnets.models.conv import plain_convolutions
from jaxnets.models.conventions import padding_of
from jaxnets.models.family import Network
from jaxnets.models.layers import BatchNorm, Conv, Head
from jaxnets.models.registry import usual_size
from jaxnets.models.sized import Sized
from jaxnets.models.statistics import Norm


class Size(NamedTuple):
    parameters: int  # numbers that training changes; running statistics are none of them
    multiply_adds: int


class Description(NamedTuple):
    size: Size
    norms: tuple[Norm, ...]


def parameters(model: nn.Module, channels: int = 3) -> int:
    """Returns how many numbers training changes, for images of `channels`."""
    return size(model, *usual_size(model), channels).parameters


def multiply_adds(model: nn.Module, height: int, width: int, channels: int = 3) -> int:
    """Returns the multiplications, each with its addition, in convolutions, dense layers and attention for one image.

    This is what papers call FLOPs or multiply-adds: output places · kernel · input channels / groups · features. Norms,
    activations, pooling and the products with the gates of squeeze-and-excitation are left out, as they are there.
    """
    return size(model, height, width, channels).multiply_adds


def size(model: nn.Module, height: int, width: int, channels: int = 3) -> Size:
    """Returns both numbers for one image."""
    return describe(model, height, width, channels).size


def describe(model: nn.Module, height: int, width: int, channels: int = 3) -> Description:
    """Returns what is known of a model for images of a size.

    Layers that are known here are replaced by their shapes while the network is traced: tracing what they do takes a
    hundred times longer. A network with parameters in other layers is traced as it is, for the same numbers.
    """
    image = jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)
    if isinstance(model, Network):
        model = model.in_float()
    try:
        return _by_shapes(model, image)
    except FlaxError:  # a layer asked for parameters
        return _by_tracing(model, image)


def _by_shapes(model: nn.Module, image: jax.ShapeDtypeStruct) -> Description:
    sizes: list[Size] = []
    norms: list[Norm] = []

    def count(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        layer = context.module
        if isinstance(layer, Sized) and context.method_name == "__call__":
            *own_size, result = layer.sized(*args)
            sizes.append(Size(*own_size))
            return result
        if not isinstance(layer, Conv | BatchNorm | nn.Dense | Head) or context.method_name != "__call__":
            return call(*args, **kwargs)
        if isinstance(layer, BatchNorm):
            norms.append(_norm(layer, args))
        own, shape = _layer(layer, args[0].shape)
        sizes.append(own)
        norm = args[1] if len(args) > 1 else None
        return jnp.zeros(shape) if norm is None else norm(jnp.zeros(shape))

    with nn.intercept_methods(count):
        jax.eval_shape(lambda x: model.apply({}, x, train=False), image)
    total = Size(sum(own.parameters for own in sizes), sum(own.multiply_adds for own in sizes))
    return Description(total, tuple(norms))


def _layer(layer: nn.Module, shape: tuple[int, ...]) -> tuple[Size, tuple[int, ...]]:
    """Returns a layer's size and the shape that it makes of an input's."""
    channels = shape[-1]
    if isinstance(layer, Conv):
        pads = padding_of(layer.padding, shape[1:3], layer.kernel, layer.stride)
        places = tuple(
            (n + low + high - k) // layer.stride + 1
            for n, k, (low, high) in zip(shape[1:3], layer.kernel, pads, strict=True)
        )
        if min(places) < 1:
            raise ValueError(f"a kernel of {layer.kernel} finds no place in {shape[1:3]} pixels")
        weights = math.prod(layer.kernel) * channels // layer.groups * layer.width
        own = Size(weights + layer.bias * layer.width, math.prod(places) * weights)
        return own, (shape[0], *places, layer.width)
    if isinstance(layer, BatchNorm):
        return Size((1 + layer.learned_scale) * channels, 0), shape
    features = layer.outputs if isinstance(layer, Head) else layer.features
    biases = features if getattr(layer, "use_bias", True) else 0
    places = shape[:-1]
    return Size(channels * features + biases, math.prod(places) * channels * features), (*places, features)


def _norm(layer: BatchNorm, args: Any) -> Norm:
    """Where a norm joins a 1×1 convolution, its input has as many pixels as what it normalises."""
    return Norm("/".join(layer.path), *args[0].shape[1:3])


def _by_tracing(model: nn.Module, image: jax.ShapeDtypeStruct) -> Description:
    norms: list[Norm] = []

    def note(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if isinstance(context.module, BatchNorm) and context.method_name == "__call__":
            norms.append(_norm(context.module, args))
        return call(*args, **kwargs)

    with plain_convolutions():
        with nn.intercept_methods(note):
            variables: Any = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
        program = jax.make_jaxpr(lambda variables, x: model.apply(variables, x, train=False))(variables, image)
    numbers = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return Description(Size(numbers, _products(program.jaxpr)), tuple(norms))


def _products(program: Jaxpr) -> int:
    """Returns the multiplications in a program's convolutions and matrix products."""
    total = 0
    for equation in program.eqns:
        name = equation.primitive.name
        shapes: list[tuple[int, ...]] = [getattr(atom.aval, "shape", ()) for atom in equation.invars]
        results = math.prod(getattr(equation.outvars[0].aval, "shape", ()))
        if name == "conv_general_dilated":
            features = shapes[1][equation.params["dimension_numbers"].rhs_spec[0]]
            total += results * math.prod(shapes[1]) // features
        elif name == "dot_general":
            summed = equation.params["dimension_numbers"][0][0]
            total += results * math.prod(shapes[0][axis] for axis in summed)
        else:
            total += equation.params.get("length", 1) * sum(_products(inner) for inner in _programs(equation.params))
    return total


def _programs(parameters: dict[str, Any]) -> Iterator[Jaxpr]:
    for value in parameters.values():
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
