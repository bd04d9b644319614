"""What an ONNX graph is written with: the values that stand for activations, and the nodes and constants they become.

Activations of four dimensions are held as [b, c, h, w], as ONNX's convolutions have them, or as [b, h, w, c] after a
layer normalisation, which needs the channels last, until something needs them first again; so a network of convolutions
alone has no transpose in its graph. Every other activation keeps JAX's order. A product or sum per channel
that follows a convolution or a dense layer becomes part of its weights, which is why those are written late.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from jaxnets.errors import UserError

CHANNELS_FIRST, CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)  # axes of the other order


class Unwritable(UserError):
    """A model does what the writer knows no nodes for."""


@dataclass(frozen=True)
class Tensor:
    """An activation in the graph; `shape` is the JAX program's, channels last, with the traced batch in front."""

    name: str
    shape: tuple[int, ...]
    last: bool = False  # of four dimensions, that the graph too holds the channels last


@dataclass(frozen=True)
class Kernel8:
    """Weights in 8 bits: whole numbers from −127 to 127, and what those of each feature (last axis) are times."""

    numbers: np.ndarray
    steps: np.ndarray


@dataclass(frozen=True)
class Affine:
    """A convolution or a dense layer that is not written yet, since what follows may become part of its weights."""

    source: str
    shape: tuple[int, ...]
    weight: np.ndarray  # [f, c, i, j], or [f, c]
    bias: np.ndarray | None
    attributes: dict[str, Any]
    steps: np.ndarray | None = None  # in 8 bits: what each feature's weights are multiplied by
    layer: str = ""  # of the network, that it comes from

    def scaled(self, gain: np.ndarray) -> "Affine":
        if self.steps is not None:
            raise Unwritable("a product with what weights in 8 bits give")
        weight = self.weight * gain.reshape(-1, *[1] * (self.weight.ndim - 1))
        return replace(self, weight=weight, bias=None if self.bias is None else self.bias * gain)

    def shifted(self, shift: np.ndarray) -> "Affine":
        return replace(self, bias=shift if self.bias is None else self.bias + shift)


@dataclass(frozen=True)
class Scaled:
    """An activation times a number that is not written yet: the sum that an average is made of."""

    tensor: Tensor
    factor: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape


Value = np.ndarray | Kernel8 | Tensor | Affine | Scaled  # an array is known already: it depends on no image


@dataclass(frozen=True)
class Equation:
    """One step of a JAX program, with the values that it is applied to."""

    name: str  # of its primitive
    params: dict[str, Any]
    inputs: list[Value]
    dtypes: tuple[np.dtype, ...]  # of the inputs
    shape: tuple[int, ...]  # of the result

    @property
    def first(self) -> Value:
        return self.inputs[0]


class Writer:
    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.relus: dict[str, Tensor] = {}  # output of a Relu: its input
        self.layer = ""  # of the network, that what is being written comes from; nodes are called after it
        self._named: Counter[str] = Counter()
        self._turned: dict[str, Tensor] = {}  # by name, the same activation in the other order of axes
        self._steps: dict[str, np.float32] = {}  # by name: the scale of an activation in 8 bits

    def write(self, value: Value) -> Tensor:
        """Returns an activation that is in the graph, of four dimensions with the channels first."""
        return self.turn(self.keep(value), last=False)

    def keep(self, value: Value) -> Tensor:
        """Returns an activation that is in the graph, in whichever order of axes it has."""
        if isinstance(value, Scaled):
            x = value.tensor
            if value.factor == 1.0:
                return x
            return self.emit("Mul", [x.name, self.scalar(value.factor)], value.shape, last=x.last)
        if isinstance(value, Affine):
            return self._affine(value)
        if isinstance(value, np.ndarray | Kernel8):
            raise Unwritable("an activation that does not depend on the image")
        return value

    def _affine(self, value: Affine) -> Tensor:
        now, self.layer = self.layer, value.layer
        try:
            return self._nodes_of(value)
        finally:
            self.layer = now

    def _nodes_of(self, value: Affine) -> Tensor:
        bias = [] if value.bias is None else [self._bias(value)]
        if value.weight.ndim == 2 and len(value.shape) > 2:
            y = self.emit("MatMul", [value.source, self._weight(value)], value.shape)
            return self.emit("Add", [y.name, *bias], y.shape) if bias else y
        names = [value.source, self._weight(value), *bias]
        if value.weight.ndim == 4:
            return self.emit("Conv", names, value.shape, **value.attributes)
        return self.emit("Gemm", names, value.shape, transB=1)

    def _weight(self, value: Affine) -> str:
        turned = value.weight.ndim == 2 and len(value.shape) > 2
        weight = value.weight.T if turned else value.weight
        if value.steps is None:
            return self.constant(weight)
        return self._dequantised(weight.astype(np.int8), value.steps, int(turned))

    def _bias(self, value: Affine) -> str:
        assert value.bias is not None
        if value.steps is None:
            return self.constant(value.bias)
        if value.source not in self._steps:
            raise Unwritable("weights in 8 bits of an input that is not")
        steps = self._steps[value.source] * value.steps
        return self._dequantised(np.round(value.bias / steps).astype(np.int32), steps, 0)

    def _dequantised(self, numbers: np.ndarray, steps: np.ndarray, axis: int) -> str:
        names = [
            self.initializer(numbers),
            self.constant(steps),
            self.initializer(np.zeros(steps.shape, numbers.dtype)),
        ]
        return self.emit("DequantizeLinear", names, numbers.shape, axis=axis).name

    def on_grid(self, x: Tensor, steps: np.float32, zero: int) -> Tensor:
        """Returns an activation in 8 bits and back in float32, which a runtime takes as leave to compute in 8."""
        grid = [self.initializer(np.asarray(steps, np.float32)), self.initializer(np.asarray(zero, np.uint8))]
        small = self.emit("QuantizeLinear", [x.name, *grid], x.shape, last=x.last)
        y = self.emit("DequantizeLinear", [small.name, *grid], x.shape, last=x.last)
        self._steps[y.name] = steps
        return y

    def turn(self, x: Tensor, *, last: bool) -> Tensor:
        """Returns an activation with the channels last, or first; only those of four dimensions have both."""
        if len(x.shape) != 4 or x.last == last:
            return x
        if x.name not in self._turned:
            axes = CHANNELS_LAST if last else CHANNELS_FIRST
            y = self.emit("Transpose", [x.name], x.shape, last=last, perm=list(axes))
            self._turned |= {x.name: y, y.name: x}
        return self._turned[x.name]

    def operands(self, values: Sequence[Value]) -> tuple[list[str], bool]:
        """Returns the names of values that meet number by number, in one order of axes, and if that is channels last.

        The order is that of the largest; where several of one size differ, channels first. Constants have as many
        dimensions as the activations, or none.

        Raises:
            Unwritable: for a constant that differs from image to image of the batch.
        """
        kept = [value if isinstance(value, np.ndarray) else self.keep(value) for value in values]
        images = [x for x in kept if isinstance(x, Tensor) and len(x.shape) == 4]
        largest = max((math.prod(x.shape) for x in images), default=0)
        last = bool(images) and all(x.last for x in images if math.prod(x.shape) == largest)
        names = [self._fixed(x, last) if isinstance(x, np.ndarray) else self.turn(x, last=last).name for x in kept]
        return names, last

    def _fixed(self, value: np.ndarray, last: bool) -> str:
        if value.ndim and value.shape[0] > 1:
            if (value != value[:1]).any():
                raise Unwritable("a constant that differs from image to image of a batch")
            value = value[:1]
        return self.constant(value.transpose(CHANNELS_FIRST) if value.ndim == 4 and not last else value)

    def emit(
        self, kind: str, inputs: list[str], shape: Sequence[int], *, last: bool = False, **attributes: Any
    ) -> Tensor:
        """Adds a node of ONNX's `kind`; returns its output, whose `shape` is JAX's."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self._node(kind, inputs, name, **attributes)
        return Tensor(name, tuple(shape), last)

    def constant(self, array: np.ndarray) -> str:
        return self.initializer(np.ascontiguousarray(array, np.float32))

    def scalar(self, number: Any) -> str:
        return self.constant(np.asarray(number, np.float32).reshape(()))

    def integers(self, numbers: Sequence[int]) -> str:
        return self.initializer(np.asarray(numbers, np.int64))

    def finish(self, results: Mapping[str, Value]) -> None:
        """Names the results, and drops what nothing reads."""
        for name, result in results.items():
            self._node("Identity", [self.write(result).name], name)
        for name in results:
            self._take_name(name)
        # A node that nobody reads (the Relu that became part of a Clip) would keep ONNX Runtime from fusing its input.
        read = set(results)
        for node in reversed(self.nodes):
            if not read.isdisjoint(node.output):
                read.update(node.input)
        self.nodes = [node for node in self.nodes if not read.isdisjoint(node.output)]
        self.initializers = [constant for constant in self.initializers if constant.name in read]

    def _take_name(self, output: str) -> None:
        """Calls what an output copies by the output's name, in place of the copy."""
        copy = next(node for node in self.nodes if list(node.output) == [output])
        (source,) = copy.input
        made = [node for node in self.nodes if source in node.output]
        if not made or sum(source in node.input for node in self.nodes if node.op_type == "Identity") > 1:
            return  # the image itself, or the same result under two names
        self.nodes.remove(copy)
        for node in self.nodes:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == source:
                        names[index] = output

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        name = f"{self.layer}/{kind}" if self.layer else kind
        self._named[name] += 1
        if self._named[name] > 1:
            name += f"_{self._named[name]}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))

    def initializer(self, array: np.ndarray) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name


def axes_order(rank: int) -> tuple[int, ...]:
    """Returns which of JAX's axes lies where in the graph, for activations of so many dimensions."""
    return CHANNELS_FIRST if rank == 4 else tuple(range(rank))
