"""What a model's bounds look at beside its probabilities, as nodes of its ONNX graph: energy and distance."""

from typing import Any

import numpy as np

from jaxnets.models.forward import Activation
from jaxnets.trust.outliers import Spread
from jaxnets.trust.refusal import Refusal

PROFILE = "profile"


def add_scores(
    model: Any, refusal: Refusal, spread: Spread | None, activation: Activation, temperature: float | None
) -> None:
    """Adds the outputs "energy" and "distance", float32 `[b]`, that a refusal has bounds for, to an `onnx.ModelProto`.

    Its graph has the output "logits", which the temperature has divided already, and "profile", which is no output
    afterwards. The nodes are those of opset 13, which every graph here has at least, or of 18 where it has that.
    """
    graph, opset = model.graph, next(entry.version for entry in model.opset_import if not entry.domain)
    if "energy" in refusal.scores:
        _add_energy(graph, opset, activation, temperature or 1.0)
    if "distance" in refusal.scores:
        assert spread is not None  # who has a bound of the distance has read them
        _add_distance(graph, opset, spread)
    kept = [output for output in graph.output if output.name != PROFILE]
    del graph.output[:]
    graph.output.extend(kept)


def _add_energy(graph: Any, opset: int, activation: Activation, temperature: float) -> None:
    if activation == "softmax":
        _reduce(graph, opset, "ReduceLogSumExp", "logits", "energy_sum")
    else:
        _node(graph, "Softplus", ["logits"], "energy_each")
        _reduce(graph, opset, "ReduceSum", "energy_each", "energy_sum")
    scale = _constant(graph, "energy_scale", np.float32(-temperature))
    _node(graph, "Mul", ["energy_sum", scale], "energy")
    _output(graph, "energy")


def _add_distance(graph: Any, opset: int, spread: Spread) -> None:
    def constant(name: str, value: Any) -> str:
        return _constant(graph, f"distance_{name}", value)

    _node(graph, "Sub", [PROFILE, constant("mean", spread.mean)], "distance_centred")
    _node(graph, "Div", ["distance_centred", constant("scale", spread.scale)], "distance_scaled")
    directions = constant("directions", spread.directions)
    turned = constant("directions_turned", np.ascontiguousarray(spread.directions.T))
    _node(graph, "MatMul", ["distance_scaled", turned], "distance_along")
    _node(graph, "MatMul", ["distance_along", directions], "distance_explained")
    _node(graph, "Sub", ["distance_scaled", "distance_explained"], "distance_across")
    deviations = constant("deviations", np.sqrt(spread.variances * len(spread.mean)))
    _node(graph, "Div", ["distance_along", deviations], "distance_along_scaled")
    rest = constant("rest", np.float32(np.sqrt(spread.rest * len(spread.mean))))
    _node(graph, "Div", ["distance_across", rest], "distance_across_scaled")
    _reduce(graph, opset, "ReduceSumSquare", "distance_along_scaled", "distance_first")
    _reduce(graph, opset, "ReduceSumSquare", "distance_across_scaled", "distance_second")
    # No Add: int8 would clip it to the largest distance of what it is calibrated on.
    _node(graph, "Sum", ["distance_first", "distance_second"], "distance_squared")
    _node(graph, "Sqrt", ["distance_squared"], "distance")
    _output(graph, "distance")


def _reduce(graph: Any, opset: int, kind: str, source: str, output: str) -> None:
    """Reduces `[b, n]` to `[b]`; opset 18 made an input of the axes, as 13 had done for ReduceSum."""
    if kind == "ReduceSum" or opset >= 18:
        _node(graph, kind, [source, _constant(graph, f"{output}_axes", np.array([1], np.int64))], output, keepdims=0)
    else:
        _node(graph, kind, [source], output, axes=[1], keepdims=0)


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
