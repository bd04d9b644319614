"""A float32 graph in 16 bits: computing in float16, or with weights that are kept as bfloat16."""

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

GraphDtype = Literal["float32", "float16", "bfloat16"]


def in_precision(model: ModelProto, dtype: GraphDtype) -> ModelProto:
    """Returns a graph of `engine.graph` in another precision; its inputs and outputs are as they were.

    float16: weights and activations. The image's normalisation stays in float32, and so does a layer that squares its
    input (ConvNeXt V2's response norm), since its sums over all pixels are beyond 65504, float16's largest number.

    bfloat16: kernels and matrices, which become float32 again where they are read: few runtimes compute in bfloat16
    (ONNX Runtime's CPU has no convolution of it), and a weight that is rounded in the file is as exact as one there.
    Depthwise kernels stay in float32: they are few, and most of the error comes from them (EfficientNet-Lite0: 4.7 % of
    the largest logit with them rounded, 1.2 % without).
    """
    if dtype == "float16":
        _compute_in_float16(model.graph)
    elif dtype == "bfloat16":
        _keep_weights_as_bfloat16(model.graph)
    return model


def _keep_weights_as_bfloat16(graph: Any) -> None:
    weights = {name for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul") for name in node.input[1:2]}
    casts = []
    for constant in graph.initializer:
        depthwise = len(constant.dims) == 4 and constant.dims[1] == 1
        if constant.name in weights and not depthwise:
            name, rounded = constant.name, numpy_helper.to_array(constant).astype(jnp.bfloat16)
            kept = f"{name}_bfloat16"
            constant.CopyFrom(
                helper.make_tensor(kept, TensorProto.BFLOAT16, rounded.shape, rounded.tobytes(), raw=True)
            )
            casts.append(_cast(kept, name, TensorProto.FLOAT))
    _replace_nodes(graph, [*casts, *graph.node])


def _compute_in_float16(graph: Any) -> None:
    exact = _nodes_in_float32(graph.node)
    constants = {constant.name: constant for constant in graph.initializer if constant.data_type == TensorProto.FLOAT}
    kept = {name for node in graph.node if node.name in exact for name in node.input if name in constants}
    of_outputs = {
        output.name: f"{output.name}_float16"
        for output in graph.output
        if any(output.name in node.output for node in graph.node if node.name not in exact)
    }
    halves: dict[str, bool] = {}  # of each activation, if it is in float16
    there: dict[str, str] = {}  # by what is read, the same in the other precision
    nodes: list[NodeProto] = []

    def read(name: str, *, half: bool) -> str:
        if name in constants and half:
            if name not in there:
                there[name] = f"{name}_float16" if name in kept else name
            return there[name]
        if name in constants or halves.get(name, half) == half:
            return name
        if name not in there:
            there[name] = f"{name}_float{16 if half else 32}"
            nodes.append(_cast(name, there[name], TensorProto.FLOAT16 if half else TensorProto.FLOAT))
        return there[name]

    if graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT:
        halves[graph.input[0].name] = False
    for node in list(graph.node):
        half = node.name not in exact
        node.input[:] = [read(of_outputs.get(name, name), half=half) for name in node.input]
        node.output[:] = [of_outputs.get(name, name) for name in node.output]
        halves.update(dict.fromkeys(node.output, half))
        nodes.append(node)
    nodes += [_cast(half_name, name, TensorProto.FLOAT) for name, half_name in of_outputs.items()]
    _replace_nodes(graph, nodes)
    for name, constant in constants.items():
        if name in there:
            half_constant = numpy_helper.from_array(_rounded(numpy_helper.to_array(constant)), there[name])
            (graph.initializer.add() if name in kept else constant).CopyFrom(half_constant)


def _nodes_in_float32(nodes: Any) -> set[str]:
    """Returns the nodes before the first layer's, which normalise the image, and those of the layers that square."""
    layers = [node.name.rpartition("/")[0] for node in nodes]
    first = next((index for index, layer in enumerate(layers) if layer), len(layers))
    squaring = {
        layer
        for node, layer in zip(nodes, layers, strict=True)
        if node.op_type == "Pow" or (node.op_type == "Mul" and node.input[0] == node.input[1])
    }
    return {
        node.name
        for index, (node, layer) in enumerate(zip(nodes, layers, strict=True))
        if index < first or (layer and layer in squaring)
    }


def _rounded(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what is beyond float16 becomes infinite, which the export's check finds
        return array.astype(np.float16)


def _cast(name: str, output: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [name], [output], name=f"Cast_{output}", to=to)


def _replace_nodes(graph: Any, nodes: list[NodeProto]) -> None:
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
