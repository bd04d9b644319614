"""JAX's operations as ONNX nodes: a function for each kind, and the table that says which one writes a primitive.

Another operation is another function `(writer, equation) -> value` and its row. What a function does not fully cover it
refuses with `Unwritable`: a graph that computes something else is worse than none. No operation may mix the images of a
batch, nor read the batch's size, which is free in the graph.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import TensorProto

from jaxnets.engine.attention import attention
from jaxnets.engine.writer import (
    CHANNELS_FIRST,
    Affine,
    Equation,
    Kernel8,
    Scaled,
    Tensor,
    Unwritable,
    Value,
    Writer,
    axes_order,
)
from jaxnets.models.steps import PREFIX

Operation = Callable[[Writer, Equation], Value]

_COMMUTATIVE = ("Add", "Mul", "Max", "Min")


def unary(kind: str) -> Operation:
    """Returns what writes a function of each number by itself that ONNX has too."""

    def write(writer: Writer, equation: Equation) -> Tensor:
        x = writer.keep(equation.first)
        return writer.emit(kind, [x.name], equation.shape, last=x.last)

    return write


def elementwise(kind: str) -> Operation:
    """Returns what writes a function of two numbers, of activations or of an activation and a constant."""

    def write(writer: Writer, equation: Equation) -> Value:
        left, right = equation.inputs
        if isinstance(left, np.ndarray) and kind in _COMMUTATIVE:
            left, right = right, left
        if isinstance(right, np.ndarray):
            simpler = _folded(kind, left, right) or _clipped(writer, kind, left, right, equation.shape)
            if simpler is not None:
                return simpler
        names, last = writer.operands([left, right])
        return writer.emit(kind, names, equation.shape, last=last)

    return write


def _folded(kind: str, left: Value, right: np.ndarray) -> Value | None:
    """Makes a product or sum with constants part of what is not written yet; None where that cannot be."""
    if isinstance(left, Scaled) and right.size == 1 and kind in ("Mul", "Div"):
        number = float(right.reshape(()))
        return replace(left, factor=left.factor * number if kind == "Mul" else left.factor / number)
    if isinstance(left, Affine):
        features = left.weight.shape[0]
        if right.size == 1 or (right.size == features and right.shape[-1] == features):
            vector = np.broadcast_to(right.reshape(-1), features).astype(np.float32)
            if kind in ("Mul", "Div"):
                return left.scaled(vector if kind == "Mul" else 1 / vector)
            if kind in ("Add", "Sub"):
                return left.shifted(-vector if kind == "Sub" else vector)
    return None


def _clipped(writer: Writer, kind: str, left: Value, right: np.ndarray, shape: tuple[int, ...]) -> Tensor | None:
    """Writes max(x, 0) as Relu, and a minimum of that as Clip; None for others."""
    if kind == "Max" and not right.any():
        written = writer.keep(left)
        relu = writer.emit("Relu", [written.name], shape, last=written.last)
        writer.relus[relu.name] = written
        return relu
    if kind == "Min" and right.size == 1 and isinstance(left, Tensor) and left.name in writer.relus:
        clipped = writer.relus[left.name]
        names = [clipped.name, writer.scalar(0.0), writer.scalar(right)]
        return writer.emit("Clip", names, shape, last=clipped.last)
    return None


def same(writer: Writer, equation: Equation) -> Value:
    return equation.first


def convert(writer: Writer, equation: Equation) -> Value:
    """Takes integers, which only the image itself holds, to float32; what is float32 stays as it is."""
    if equation.dtypes[0] == np.float32:
        return equation.first
    return writer.emit("Cast", [writer.write(equation.first).name], equation.shape, to=TensorProto.FLOAT)


def convolution(writer: Writer, equation: Equation) -> Affine:
    p, (x, weights) = equation.params, equation.inputs
    numbers = p["dimension_numbers"]
    kernel, steps = _kernel(weights)
    if kernel is None:
        raise Unwritable("a convolution whose kernel depends on the image")
    if tuple(numbers.lhs_spec) != CHANNELS_FIRST or set(p["lhs_dilation"]) != {1} or p["batch_group_count"] != 1:
        raise Unwritable("a convolution that is not one of images [b, h, w, c]")
    if tuple(numbers.rhs_spec) != (3, 2, 0, 1) or tuple(numbers.out_spec) != CHANNELS_FIRST:
        raise Unwritable("a convolution whose kernel is not [i, j, c, f]")
    attributes = {
        "kernel_shape": list(kernel.shape[:2]),
        "strides": list(p["window_strides"]),
        "pads": [low for low, _ in p["padding"]] + [high for _, high in p["padding"]],
        "dilations": list(p["rhs_dilation"]),
        "group": p["feature_group_count"],
    }
    if min(attributes["pads"]) < 0:
        raise Unwritable("a convolution that crops its image")
    weight = np.transpose(kernel, (3, 2, 0, 1))  # HWIO to OIHW
    return Affine(writer.write(x).name, equation.shape, weight, None, attributes, steps)


def _kernel(value: Value) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Returns weights, and what each feature's are multiplied by where they are in 8 bits; None for an activation."""
    if isinstance(value, Kernel8):
        return value.numbers, value.steps
    return (value if isinstance(value, np.ndarray) else None), None


def product(writer: Writer, equation: Equation) -> Affine:
    """A dense layer, over the last axis; of four dimensions, a 1×1 convolution.

    It is that after a layer normalisation too, and the channels are turned to be first once more: ConvNeXts then take a
    tenth less time in ONNX Runtime than as products of matrices.
    """
    (left, right), batched = equation.params["dimension_numbers"]
    x, weights = equation.inputs
    kernel, steps = _kernel(weights)
    if tuple(batched[0]) or kernel is None or kernel.ndim != 2 or isinstance(x, np.ndarray | Kernel8):
        raise Unwritable("a product of two activations")
    if tuple(right) != (0,) or tuple(left) != (len(x.shape) - 1,) or len(x.shape) not in (2, 3, 4):
        raise Unwritable(f"a product of {len(x.shape)} dimensions over the axes {tuple(left)}")
    kept = writer.write(x)
    if len(x.shape) == 4:
        attributes = {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1], "group": 1}
        return Affine(kept.name, equation.shape, kernel.T[:, :, None, None], None, attributes, steps)
    return Affine(kept.name, equation.shape, kernel.T, None, {}, steps)


def layer_normalisation(writer: Writer, equation: Equation) -> Tensor:
    """`models.per_channel.layer_norm`, whose channels have to lie last."""
    x, *fixed = equation.inputs
    scale, bias, epsilon = (np.asarray(value) for value in fixed if isinstance(value, np.ndarray))
    kept = writer.turn(writer.keep(x), last=True)
    names = [kept.name, writer.constant(scale), writer.constant(bias)]
    number = float(epsilon.reshape(()))
    return writer.emit("LayerNormalization", names, equation.shape, last=kept.last, axis=-1, epsilon=number)


def quantised(writer: Writer, equation: Equation) -> Tensor:
    """`models.quantised.grid.quantise`: an activation in 8 bits."""
    x, scale, zero = equation.inputs
    if not isinstance(scale, np.ndarray) or not isinstance(zero, np.ndarray):
        raise Unwritable("a range that depends on the image")
    return writer.on_grid(writer.write(x), np.float32(scale), int(zero))


def quantised_kernel(kernel: np.ndarray, steps: np.ndarray) -> Kernel8:
    """`models.quantised.grid.quantise_kernel`."""
    return Kernel8(np.clip(np.round(kernel / steps), -127, 127), steps)


def square(writer: Writer, equation: Equation) -> Tensor:
    x = writer.keep(equation.first)
    return writer.emit("Mul", [x.name, x.name], equation.shape, last=x.last)


def power(writer: Writer, equation: Equation) -> Tensor:
    x = writer.keep(equation.first)
    return writer.emit("Pow", [x.name, writer.scalar(equation.params["y"])], equation.shape, last=x.last)


def total(writer: Writer, equation: Equation) -> Value:
    """A sum over an image's axes; over rows and columns with the channels first, an average times their number."""
    x, axes = writer.keep(equation.first), tuple(equation.params["axes"])
    if 0 in axes:
        raise Unwritable("a sum over the images of a batch")
    if len(x.shape) != 4 or x.last:
        inputs = [x.name, writer.integers(axes)]
        return writer.emit("ReduceSum", inputs, equation.shape, keepdims=0)
    if axes != (1, 2):
        raise Unwritable("a sum over other axes than rows and columns")
    average = writer.emit("GlobalAveragePool", [x.name], (*equation.shape, 1, 1))
    flat = writer.emit("Flatten", [average.name], equation.shape, axis=1)
    return Scaled(flat, float(x.shape[1] * x.shape[2]))


def window_maximum(writer: Writer, equation: Equation) -> Tensor:
    return writer.emit("MaxPool", [writer.write(equation.first).name], equation.shape, **_window(equation.params))


def window_sum(writer: Writer, equation: Equation) -> Scaled:
    window = _window(equation.params)
    names = [writer.write(equation.first).name]
    average = writer.emit("AveragePool", names, equation.shape, count_include_pad=1, **window)
    return Scaled(average, float(np.prod(window["kernel_shape"])))


def _window(params: dict[str, Any]) -> dict[str, Any]:
    """Returns a pooling window's attributes."""
    sides, strides, padding = (params[key] for key in ("window_dimensions", "window_strides", "padding"))
    others = [(sides[axis], strides[axis], tuple(padding[axis])) for axis in (0, -1)]
    dilations = {*params["base_dilation"], *params["window_dilation"]}
    if len(sides) != 4 or others != [(1, 1, (0, 0))] * 2 or dilations != {1}:
        raise Unwritable("a window over more than rows and columns")
    return {
        "kernel_shape": list(sides[1:3]),
        "strides": list(strides[1:3]),
        "pads": [low for low, _ in padding[1:3]] + [high for _, high in padding[1:3]],
    }


def broadcast(writer: Writer, equation: Equation) -> Value:
    x, shape = writer.keep(equation.first), equation.shape
    axes = tuple(equation.params["broadcast_dimensions"])
    if x.shape == shape and axes == tuple(range(len(shape))):
        return x
    kept = axes[:1] == (0,) and all(shape[axis] == size for axis, size in zip(axes, x.shape, strict=True))
    if kept and (inserted := _with_ones(writer, x, shape)) is not None:
        return inserted
    if len(x.shape) == 2 and len(shape) == 4 and axes == (0, 3) and shape[1:3] == (1, 1):
        return _as_image(writer, x, shape)
    raise Unwritable(f"spreading {x.shape} over {shape}")


def reshape(writer: Writer, equation: Equation) -> Value:
    x, shape = writer.keep(equation.first), equation.shape
    if equation.params.get("dimensions") is not None:
        raise Unwritable("a reshape in another order")
    if x.shape == shape:
        return x
    if (inserted := _with_ones(writer, x, shape)) is not None:
        return inserted
    if len(x.shape) == 2 and len(shape) == 4 and shape[0] == x.shape[0] and shape[1:3] == (1, 1):
        return _as_image(writer, x, shape)
    if shape[0] == x.shape[0] and shape[-1] == x.shape[-1] and {len(shape), len(x.shape)} == {3, 4}:
        return _regrouped(writer, x, shape)
    raise Unwritable(f"a reshape of {x.shape} to {shape}")


def _regrouped(writer: Writer, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Makes rows and columns tokens `[b, n, c]`, or tokens rows and columns, with the channels last."""
    names = [writer.turn(x, last=True).name, writer.integers([0, *shape[1:]])]
    return writer.emit("Reshape", names, shape, last=len(shape) == 4)


def _with_ones(writer: Writer, x: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """Gives an activation axes of size 1, or takes them away; None where that is not what makes the shape of x's."""
    if max(len(x.shape), len(shape)) > 3 or x.shape[0] != shape[0]:
        return None
    if [size for size in x.shape[1:] if size != 1] != [size for size in shape[1:] if size != 1]:
        return None
    return writer.emit("Reshape", [x.name, writer.integers([0, *shape[1:]])], shape)


def _as_image(writer: Writer, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Gives [b, c] the rows and columns of one pixel."""
    return writer.emit("Reshape", [x.name, writer.integers([0, shape[3], 1, 1])], shape)


def pad(writer: Writer, equation: Equation) -> Tensor:
    x, value = equation.inputs
    config = equation.params["padding_config"]
    if any(inner for _, _, inner in config) or any(low < 0 or high < 0 for low, high, _ in config):
        raise Unwritable("padding between pixels, or a crop")
    if any(config[0]) or not isinstance(value, np.ndarray):
        raise Unwritable("padding of the batch, or with activations")
    order = axes_order(len(config))
    pads = [config[axis][0] for axis in order] + [config[axis][1] for axis in order]
    return writer.emit("Pad", [writer.write(x).name, writer.integers(pads), writer.scalar(value)], equation.shape)


def slice_(writer: Writer, equation: Equation) -> Value:
    x, params = writer.write(equation.first), equation.params
    steps = params["strides"] or [1] * len(x.shape)
    chosen = {
        axis: (start, end, step)
        for axis, (start, end, step) in enumerate(
            zip(params["start_indices"], params["limit_indices"], steps, strict=True)
        )
        if (start, end, step) != (0, x.shape[axis], 1)
    }
    if 0 in chosen:
        raise Unwritable("some of a batch's images")
    if not chosen:
        return x
    order = axes_order(len(x.shape))
    starts, ends, strides = (list(numbers) for numbers in zip(*chosen.values(), strict=True))
    where = [order.index(axis) for axis in chosen]
    return writer.emit(
        "Slice", [x.name, *(writer.integers(numbers) for numbers in (starts, ends, where, strides))], equation.shape
    )


def concatenate(writer: Writer, equation: Equation) -> Tensor:
    """Vectors of the same images side by side."""
    if len(equation.shape) != 2 or equation.params["dimension"] != 1:
        raise Unwritable("joining other things than an image's vectors")
    return writer.emit("Concat", [writer.write(x).name for x in equation.inputs], equation.shape, axis=1)


# The primitives of JAX that a network may hold, each with what writes it.
OPERATIONS: dict[str, Operation] = {
    "conv_general_dilated": convolution,
    "dot_general": product,
    "add": elementwise("Add"),
    "add_any": elementwise("Add"),
    "sub": elementwise("Sub"),
    "mul": elementwise("Mul"),
    "div": elementwise("Div"),
    "max": elementwise("Max"),
    "min": elementwise("Min"),
    "logistic": unary("Sigmoid"),
    "exp": unary("Exp"),
    "sqrt": unary("Sqrt"),
    "tanh": unary("Tanh"),
    "erf": unary("Erf"),
    "neg": unary("Neg"),
    "square": square,
    "integer_pow": power,
    "reduce_sum": total,
    "reduce_window_max": window_maximum,
    "reduce_window_sum": window_sum,
    "broadcast_in_dim": broadcast,
    "reshape": reshape,
    "pad": pad,
    "slice": slice_,
    "concatenate": concatenate,
    "convert_element_type": convert,
    "copy": same,
    "stop_gradient": same,
    "optimization_barrier": same,
}

# The functions of `jaxnets.models` that stay one step of a program (`models.steps`), each with what writes it.
STEPS: dict[str, Operation] = {
    f"{PREFIX}attention": attention,
    f"{PREFIX}gelu": unary("Gelu"),
    f"{PREFIX}layer_norm": layer_normalisation,
    f"{PREFIX}quantise": quantised,
}

# Those of constants alone that are not simply computed.
CONSTANT_STEPS: dict[str, Callable[..., Value]] = {f"{PREFIX}quantise_kernel": quantised_kernel}
