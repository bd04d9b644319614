"""From a model's JAX program to an ONNX graph, channels first, with its norms folded into its convolutions.

The program is traced with its weights as constants. Whatever depends on constants alone is computed at once; what is
left is a short list of operations, the same for every network here. Activations of four dimensions are held as
[b, c, h, w], as ONNX has them, so that no transpose is left in the graph. A product or sum per channel that follows a
convolution or a dense layer becomes part of its weights.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from onnx import ModelProto, TensorProto, helper, numpy_helper

from jaxnets.preprocess import Preprocess

OPSET = 17  # the newest that OpenCV's dnn reads without complaint

_CHANNELS_FIRST = (0, 3, 1, 2)
_ELEMENTWISE = {"add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min"}
_UNARY = {"logistic": "Sigmoid", "exp": "Exp", "tanh": "Tanh", "neg": "Neg"}
_INLINED = ("jit", "pjit", "custom_jvp_call", "custom_vjp_call", "closed_call", "remat")


@dataclass(frozen=True)
class _Tensor:
    """An activation in the graph; `shape` is the JAX program's, channels last, with the traced batch in front."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Affine:
    """A convolution or a dense layer that is not written yet, since what follows may become part of its weights."""

    source: str
    shape: tuple[int, ...]
    weight: np.ndarray  # [f, c, i, j], or [f, c]
    bias: np.ndarray | None
    attributes: dict[str, Any]

    def scaled(self, gain: np.ndarray) -> "_Affine":
        weight = self.weight * gain.reshape(-1, *[1] * (self.weight.ndim - 1))
        return replace(self, weight=weight, bias=None if self.bias is None else self.bias * gain)

    def shifted(self, shift: np.ndarray) -> "_Affine":
        return replace(self, bias=shift if self.bias is None else self.bias + shift)


@dataclass(frozen=True)
class _Scaled:
    """An activation times a number that is not written yet: the sum that an average is made of."""

    tensor: _Tensor
    factor: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape


_Value = np.ndarray | _Tensor | _Affine | _Scaled


def to_onnx(
    function: Callable[[jax.Array], jax.Array],
    image: tuple[int, int, int],
    *,
    preprocess: Preprocess | None = None,
) -> ModelProto:
    """Returns the ONNX model of `function`, float32 `[b, h, w, c]` → `[b, classes]`, for any batch.

    The graph's input is "image", float32 `[b, c, h, w]`; its output is "logits", float32 `[b, classes]`.

    Args:
        function: in JAX, with its weights as constants; images do not depend on each other in it.
        image: height, width and channels.
        preprocess: its normalisation becomes part of the graph, whose input is then uint8 `[b, h, w, c]`.

    Raises:
        NotImplementedError: if the function does what no network here does.
    """
    height, width, channels = image
    batch = 2  # any number that is no number of channels would do; the graph's own is free
    traced = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((batch, height, width, channels), np.float32))
    writer = _Writer(batch)
    shape = (batch, height, width, channels)
    if preprocess is None:
        x = _Tensor("image", shape)
        taken = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", channels, height, width])
    else:
        x = writer.normalised("image", preprocess, shape)
        taken = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", height, width, channels])
    (result,) = writer.run(traced, [x])
    writer.finish(result, "logits")
    given = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", result.shape[1]])
    graph = helper.make_graph(writer.nodes, "jaxnets", [taken], [given], writer.initializers)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="jaxnets"
    )


class _Writer:
    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._relus: dict[str, str] = {}  # output of a Relu: its input

    def run(self, program: ClosedJaxpr, arguments: Sequence[_Value]) -> list[Any]:
        return self._run(program.jaxpr, [np.asarray(const) for const in program.consts], list(arguments))

    def normalised(self, source: str, preprocess: Preprocess, shape: tuple[int, ...]) -> _Tensor:
        """Returns `Preprocess.normalise` of uint8 images, turned to channels first while they are small."""
        scale, offset = preprocess.scale_and_offset()
        turned = self._emit("Transpose", [source], shape, perm=list(_CHANNELS_FIRST))
        wide = self._emit("Cast", [turned.name], shape, to=TensorProto.FLOAT)
        scaled = self._emit("Mul", [wide.name, self._constant(scale[:, None, None])], shape)
        return self._emit("Sub", [scaled.name, self._constant(offset[:, None, None])], shape)

    def finish(self, result: _Value, output_name: str) -> None:
        self._node("Identity", [self._write(result).name], output_name)
        # The last real node takes the output's name in place of a copy.
        last, copy = self.nodes[-2], self.nodes[-1]
        if list(last.output) == list(copy.input):
            last.output[0] = output_name
            self.nodes.pop()
        # A node that nobody reads (the Relu that became part of a Clip) would keep ONNX Runtime from fusing its input.
        read = {output_name}
        for node in reversed(self.nodes):
            if not read.isdisjoint(node.output):
                read.update(node.input)
        self.nodes = [node for node in self.nodes if not read.isdisjoint(node.output)]
        self.initializers = [constant for constant in self.initializers if constant.name in read]

    def _run(self, jaxpr: Jaxpr, consts: list[Any], arguments: list[Any]) -> list[Any]:
        values: dict[Any, _Value] = {
            **dict(zip(jaxpr.constvars, consts, strict=True)),
            **dict(zip(jaxpr.invars, arguments, strict=True)),
        }

        def read(atom: Any) -> Any:
            return np.asarray(atom.val) if isinstance(atom, Literal) else values[atom]

        uses = Counter(atom for eqn in jaxpr.eqns for atom in eqn.invars if not isinstance(atom, Literal))
        uses.update(atom for atom in jaxpr.outvars if not isinstance(atom, Literal))
        for eqn in jaxpr.eqns:
            inputs = [read(atom) for atom in eqn.invars]
            for place, atom in enumerate(eqn.invars):
                # What is used again has to be written as it is now, before anything is folded into it.
                if not isinstance(atom, Literal) and uses[atom] > 1 and isinstance(inputs[place], _Affine | _Scaled):
                    values[atom] = inputs[place] = self._write(inputs[place])
            inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
            if eqn.primitive.name in _INLINED and inner is not None:
                closed = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, [])
                results = self.run(closed, inputs)
            elif all(isinstance(value, np.ndarray) for value in inputs):
                results = _compute(eqn, inputs)
            else:
                results = [self._apply(eqn, inputs)]
            values.update(zip(eqn.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _apply(self, eqn: Any, inputs: list[Any]) -> _Value:
        name = eqn.primitive.name
        shape = eqn.outvars[0].aval.shape
        if name == "conv_general_dilated":
            return self._convolution(eqn, inputs, shape)
        if name == "dot_general":
            return self._product(eqn, inputs, shape)
        if name in _ELEMENTWISE:
            return self._elementwise(name, inputs, shape)
        if name in ("convert_element_type", "copy", "stop_gradient", "optimization_barrier"):
            return inputs[0]
        method = getattr(self, f"_{name}", None)
        if name in _UNARY:
            return self._emit(_UNARY[name], [self._write(inputs[0]).name], shape)
        if method is None:
            raise NotImplementedError(f"{name} has no counterpart in the ONNX graph yet")
        return method(eqn.params, inputs, shape)

    def _convolution(self, eqn: Any, inputs: list[Any], shape: tuple[int, ...]) -> _Affine:
        p, kernel = eqn.params, inputs[1]
        numbers = p["dimension_numbers"]
        if tuple(numbers.lhs_spec) != _CHANNELS_FIRST or set(p["lhs_dilation"]) != {1} or p["batch_group_count"] != 1:
            raise NotImplementedError("a convolution that is not one of images [b, h, w, c]")
        attributes = {
            "kernel_shape": list(kernel.shape[:2]),
            "strides": list(p["window_strides"]),
            "pads": [low for low, _ in p["padding"]] + [high for _, high in p["padding"]],
            "dilations": list(p["rhs_dilation"]),
            "group": p["feature_group_count"],
        }
        weight = np.transpose(kernel, (3, 2, 0, 1))  # HWIO to OIHW
        return _Affine(self._write(inputs[0]).name, shape, weight, None, attributes)

    def _product(self, eqn: Any, inputs: list[Any], shape: tuple[int, ...]) -> _Affine:
        (left, right), batched = eqn.params["dimension_numbers"]
        x, kernel = inputs
        if tuple(batched[0]) or not isinstance(kernel, np.ndarray) or kernel.ndim != 2:
            raise NotImplementedError("a product of two activations")
        if tuple(right) != (0,) or tuple(left) != (len(x.shape) - 1,):
            raise NotImplementedError("a product over other axes than the last")
        if len(x.shape) == 4:  # a 1×1 convolution, computed as a product
            attributes = {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1], "group": 1}
            return _Affine(self._write(x).name, shape, kernel.T[:, :, None, None], None, attributes)
        return _Affine(self._write(x).name, shape, kernel.T, None, {})

    def _elementwise(self, name: str, inputs: list[Any], shape: tuple[int, ...]) -> _Value:
        left, right = inputs
        if isinstance(left, np.ndarray) and name in ("add", "add_any", "mul", "max", "min"):
            left, right = right, left
        if isinstance(right, np.ndarray):
            folded = self._fold(name, left, right)
            if folded is not None:
                return folded
            written = self._write(left)
            if name == "max" and not right.any():
                relu = self._emit("Relu", [written.name], shape)
                self._relus[relu.name] = written.name
                return relu
            if name == "min" and right.size == 1 and written.name in self._relus:
                return self._emit("Clip", [self._relus[written.name], self._scalar(0.0), self._scalar(right)], shape)
        names = [
            self._constant(_channels_first(value)) if isinstance(value, np.ndarray) else self._write(value).name
            for value in (left, right)
        ]
        return self._emit(_ELEMENTWISE[name], names, shape)

    def _fold(self, name: str, left: _Value, right: np.ndarray) -> _Value | None:
        """Makes a product or sum with constants part of what is not written yet; None where that cannot be."""
        if isinstance(left, _Scaled) and right.size == 1 and name in ("mul", "div"):
            number = float(right.reshape(()))
            return replace(left, factor=left.factor * number if name == "mul" else left.factor / number)
        if isinstance(left, _Affine):
            features = left.weight.shape[0]
            if right.size == 1 or (right.size == features and right.shape[-1] == features):
                vector = np.broadcast_to(right.reshape(-1), features).astype(np.float32)
                if name in ("mul", "div"):
                    return left.scaled(vector if name == "mul" else 1 / vector)
                if name in ("add", "add_any", "sub"):
                    return left.shifted(-vector if name == "sub" else vector)
        return None

    def _reduce_sum(self, params: Any, inputs: list[Any], shape: tuple[int, ...]) -> _Value:
        x = inputs[0]
        if len(x.shape) != 4 or tuple(params["axes"]) != (1, 2):
            raise NotImplementedError("a sum over other axes than rows and columns")
        average = self._emit("GlobalAveragePool", [self._write(x).name], (*shape, 1, 1))
        return _Scaled(self._emit("Flatten", [average.name], shape, axis=1), float(x.shape[1] * x.shape[2]))

    def _reduce_window_max(self, params: Any, inputs: list[Any], shape: tuple[int, ...]) -> _Tensor:
        return self._emit("MaxPool", [self._write(inputs[0]).name], shape, **_window(params))

    def _reduce_window_sum(self, params: Any, inputs: list[Any], shape: tuple[int, ...]) -> _Value:
        window = _window(params)
        average = self._emit("AveragePool", [self._write(inputs[0]).name], shape, count_include_pad=1, **window)
        return _Scaled(average, float(np.prod(window["kernel_shape"])))

    def _broadcast_in_dim(self, params: Any, inputs: list[Any], shape: tuple[int, ...]) -> _Value:
        x = self._write(inputs[0])
        axes = tuple(params["broadcast_dimensions"])
        if len(x.shape) == 2 and len(shape) == 4 and axes == (0, 3) and shape[1:3] == (1, 1):
            return self._reshaped(x, [0, shape[3], 1, 1], shape)
        if x.shape == tuple(shape):
            return x
        raise NotImplementedError(f"spreading {x.shape} over {shape}")

    def _reshape(self, params: Any, inputs: list[Any], shape: tuple[int, ...]) -> _Value:
        x = self._write(inputs[0])
        if len(x.shape) == 2 and len(shape) == 4 and shape[1:3] == (1, 1):
            return self._reshaped(x, [0, shape[3], 1, 1], shape)
        if x.shape == tuple(shape):
            return x
        raise NotImplementedError(f"a reshape of {x.shape} to {shape}")

    def _pad(self, params: Any, inputs: list[Any], shape: tuple[int, ...]) -> _Tensor:
        config = params["padding_config"]
        if any(inner for _, _, inner in config) or any(low < 0 or high < 0 for low, high, _ in config):
            raise NotImplementedError("padding between pixels")
        order = _CHANNELS_FIRST if len(config) == 4 else range(len(config))
        pads = [config[axis][0] for axis in order] + [config[axis][1] for axis in order]
        names = [self._write(inputs[0]).name, self._integers(pads), self._scalar(inputs[1])]
        return self._emit("Pad", names, shape)

    def _slice(self, params: Any, inputs: list[Any], shape: tuple[int, ...]) -> _Tensor:
        x = self._write(inputs[0])
        steps = params["strides"] or [1] * len(shape)
        order = _CHANNELS_FIRST if len(shape) == 4 else tuple(range(len(shape)))
        chosen = [
            (place, params["start_indices"][axis], params["limit_indices"][axis], steps[axis])
            for place, axis in enumerate(order)
            if (params["start_indices"][axis], params["limit_indices"][axis], steps[axis]) != (0, x.shape[axis], 1)
        ]
        places, starts, ends, strides = (list(column) for column in zip(*chosen, strict=True))
        names = [x.name, *(self._integers(numbers) for numbers in (starts, ends, places, strides))]
        return self._emit("Slice", names, shape)

    def _reshaped(self, x: _Tensor, to: list[int], shape: tuple[int, ...]) -> _Tensor:
        return self._emit("Reshape", [x.name, self._integers(to)], shape)

    def _write(self, value: Any) -> _Tensor:
        """Returns an activation that is in the graph."""
        if isinstance(value, _Scaled):
            if value.factor == 1.0:
                return value.tensor
            return self._emit("Mul", [value.tensor.name, self._scalar(value.factor)], value.shape)
        if isinstance(value, _Affine):
            bias = [] if value.bias is None else [self._constant(value.bias)]
            names = [value.source, self._constant(value.weight), *bias]
            if value.weight.ndim == 4:
                return self._emit("Conv", names, value.shape, **value.attributes)
            return self._emit("Gemm", names, value.shape, transB=1)
        if isinstance(value, np.ndarray):
            raise NotImplementedError("an activation that does not depend on the image")
        return value

    def _emit(self, kind: str, inputs: list[str], shape: Sequence[int], **attributes: Any) -> _Tensor:
        name = f"{kind.lower()}_{len(self.nodes)}"
        self._node(kind, inputs, name, **attributes)
        return _Tensor(name, tuple(shape))

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{kind}_{len(self.nodes)}", **attributes))

    def _constant(self, array: np.ndarray) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    def _scalar(self, number: Any) -> str:
        return self._constant(np.asarray(number, np.float32).reshape(()))

    def _integers(self, numbers: Sequence[int]) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(numbers, np.int64), name))
        return name


def _window(params: Any) -> dict[str, list[int]]:
    """Returns a pooling window's attributes; the window covers rows and columns alone."""
    padding = params["padding"][1:3]
    return {
        "kernel_shape": list(params["window_dimensions"][1:3]),
        "strides": list(params["window_strides"][1:3]),
        "pads": [low for low, _ in padding] + [high for _, high in padding],
    }


def _channels_first(array: np.ndarray) -> np.ndarray:
    return array.transpose(_CHANNELS_FIRST) if array.ndim == 4 else array


def _spread(params: Any, x: np.ndarray) -> np.ndarray:
    shape = [1] * len(params["shape"])
    for place, axis in enumerate(params["broadcast_dimensions"]):
        shape[axis] = x.shape[place]
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


def _compute(eqn: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Returns an equation's results where its inputs are all known."""
    if eqn.primitive.name in _NUMPY:
        return [_NUMPY[eqn.primitive.name](eqn.params, *inputs)]
    with jax.ensure_compile_time_eval():
        results = eqn.primitive.bind(*inputs, **eqn.params)
    return [np.asarray(result) for result in (results if eqn.primitive.multiple_results else [results])]
