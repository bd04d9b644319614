"""What a model's bounds look at beside its probabilities, as nodes of its ONNX graph: energy and distance."""

from typing import Any

import numpy as np

from jaxnets.models.forward import Activation
from jaxnets.trust.outliers import Neighbours
from jaxnets.trust.refusal import Refusal

EMBEDDING = "embedding"


def add_scores(
    model: Any, refusal: Refusal, neighbours: Neighbours | None, activation: Activation, temperature: float | None
) -> None:
    """Adds the outputs "energy" and "distance", float32 `[b]`, that a refusal has bounds for, to an `onnx.ModelProto`.

    Its graph has the output "logits", which the temperature has divided already, and "embedding", which is no output
    afterwards. The nodes are those of opset 13, which every graph here has at least.
    """
    graph = model.graph
    if "energy" in refusal.scores:
        _add_energy(graph, activation, temperature or 1.0)
    if "distance" in refusal.scores:
        assert neighbours is not None  # who has a bound of the distance has read them
        _add_distance(graph, neighbours)
    kept = [output for output in graph.output if output.name != EMBEDDING]
    del graph.output[:]
    graph.output.extend(kept)


def _add_energy(graph: Any, activation: Activation, temperature: float) -> None:
    if activation == "softmax":
        _node(graph, "ReduceLogSumExp", ["logits"], "energy_sum", axes=[1], keepdims=0)
    else:
        _node(graph, "Softplus", ["logits"], "energy_each")
        axes = _constant(graph, "energy_axes", np.array([1], np.int64))
        _node(graph, "ReduceSum", ["energy_each", axes], "energy_sum", keepdims=0)
    scale = _constant(graph, "energy_scale", np.float32(-temperature))
    _node(graph, "Mul", ["energy_sum", scale], "energy")
    _output(graph, "energy")


def _add_distance(graph: Any, neighbours: Neighbours) -> None:
    def constant(name: str, value: Any) -> str:
        return _constant(graph, f"distance_{name}", value)

    _node(graph, "ReduceL2", [EMBEDDING], "distance_length", axes=[1], keepdims=1)
    _node(graph, "Max", ["distance_length", constant("least", np.float32(1e-12))], "distance_divisor")
    _node(graph, "Div", [EMBEDDING, "distance_divisor"], "distance_direction")
    vectors = constant("vectors", np.ascontiguousarray(neighbours.vectors.T, np.float32))
    _node(graph, "MatMul", ["distance_direction", vectors], "distance_likeness")
    k = constant("k", np.array([neighbours.k], np.int64))
    _node(graph, "TopK", ["distance_likeness", k], "distance_nearest", "distance_which", axis=1)
    last = constant("last", np.int64(neighbours.k - 1))
    _node(graph, "Gather", ["distance_nearest", last], "distance_kth", axis=1)
    _node(graph, "Mul", ["distance_kth", constant("minus_two", np.float32(-2))], "distance_negative")
    _node(graph, "Add", ["distance_negative", constant("two", np.float32(2))], "distance_rounded")
    _node(graph, "Max", ["distance_rounded", constant("zero", np.float32(0))], "distance_squared")
    _node(graph, "Sqrt", ["distance_squared"], "distance")
    _output(graph, "distance")


def _node(graph: Any, kind: str, inputs: list[str], *outputs: str, **attributes: Any) -> None:
    from onnx import helper

    graph.node.append(helper.make_node(kind, inputs, list(outputs), name=outputs[0], **attributes))


def _constant(graph: Any, name: str, value: Any) -> str:
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def _output(graph: Any, name: str) -> None:
    from onnx import TensorProto, helper

    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"]))
