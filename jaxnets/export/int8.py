"""ONNX in 8 bits, all of a network or some of its layers, and what that costs in answers."""

import copy
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from jaxnets.answer import decide, sigmoid
from jaxnets.classifier import Classifier
from jaxnets.engine.onnx_file import require
from jaxnets.export.calibration import Calibration, batches
from jaxnets.export.check import Logits
from jaxnets.export.onnx_export import channels_first
from jaxnets.models.forward import Activation

# What runs in 8 bits; the classifier and the gates stay in float32, where they cost nothing and matter most.
_QUANTISED = ["Conv", "MatMul", "Add", "Relu", "Clip", "GlobalAveragePool", "MaxPool"]


@dataclass(frozen=True, kw_only=True)
class Quantisable:
    """A float32 graph as the quantiser wants it."""

    model: Any  # an `onnx.ModelProto`, its shapes known
    layers: dict[str, tuple[str, ...]]  # the convolutions and dense layers that 8 bits take, each with its nodes
    exact: tuple[str, ...]  # nodes that stay in float32


def quantisable(content: bytes) -> Quantisable:
    """Returns a float32 file of `export_onnx`, ready for `calibrate` and `quantise`."""
    require("onnxruntime")
    from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        whole, prepared = (Path(folder) / f"{name}.onnx" for name in ("whole", "prepared"))
        whole.write_bytes(content)
        quant_pre_process(whole, prepared, skip_symbolic_shape=True)
        model = load_model_with_shape_infer(prepared)
    exact = _exact(model.graph)
    return Quantisable(model=model, layers=_layers(model.graph, exact), exact=tuple(exact))


def calibrate(graph: Quantisable, classifier: Classifier, images: UInt8[np.ndarray, "b h w c"]) -> Any:
    """Returns the range of each activation (a `TensorsData`) over some hundred images of the kind to come."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, create_calibrator

    takes_uint8 = graph.model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = self._read()

        def _read(self) -> Iterator[dict[str, Any]]:
            for batch in batches(images, 16):
                yield {"image": batch if takes_uint8 else channels_first(classifier, batch)}

        def get_next(self) -> dict[str, Any] | None:
            return next(self._batches, None)

    with tempfile.TemporaryDirectory() as folder:
        whole, augmented = (Path(folder) / f"{name}.onnx" for name in ("whole", "augmented"))
        onnx.save(graph.model, whole)
        calibrator = create_calibrator(whole, _QUANTISED, augmented_model_path=str(augmented))
        calibrator.collect_data(Reader())
        return calibrator.compute_data()


def quantise(graph: Quantisable, ranges: Any, *, alone: Sequence[str] = (), kept: Collection[str] = ()) -> bytes:
    """Returns the file in 8 bits: uint8 activations, int8 weights with a scale for each feature.

    Args:
        graph: in float32.
        ranges: of its activations, from `calibrate`.
        alone: nodes; the others stay in float32. All where there are none.
        kept: nodes that stay in float32 besides those that always do.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    from jaxnets.engine.opset import ask_for_least

    quantizer = QDQQuantizer(
        copy.deepcopy(graph.model),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=copy.deepcopy(ranges),  # which it changes
        nodes_to_quantize=list(alone),
        nodes_to_exclude=[*graph.exact, *kept],
        op_types_to_quantize=_QUANTISED,
        extra_options={},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    model = quantizer.model.model
    _hold_in_float32(model.graph, kept)
    # ONNX Runtime's optimizer imports every domain that it knows, which older versions of it refuse.
    return ask_for_least(model).SerializeToString()


def _hold_in_float32(graph: Any, kept: Collection[str]) -> None:
    """Gives kept convolutions whose input was in 8 bits that input by a scale per channel, all of them the same.

    Between two of 8 bits ONNX Runtime takes a convolution to 8 bits as well when it opens a file, with one scale for
    all of its weights (WeightBiasQuantization): EfficientNet-Lite0 with its first depthwise convolution kept was off by
    37 %, with none kept by 12 %. It does so where the input has one scale.
    """
    from onnx import helper, numpy_helper

    made_by = {node.output[0]: node for node in graph.node}
    constants = {constant.name: constant for constant in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Conv" and node.name in kept]:
        source = made_by.get(node.input[0])
        if source is None or source.op_type != "DequantizeLinear":
            continue
        group = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        channels = constants[node.input[1]].dims[1] * group
        names = [f"{node.name}_{kind}" for kind in ("scale", "zero_point")]
        for name, number in zip(names, source.input[1:], strict=True):
            spread = np.repeat(numpy_helper.to_array(constants[number]).reshape(1), channels)
            graph.initializer.append(numpy_helper.from_array(spread, name))
        own = f"{node.name}_input"
        made = helper.make_node("DequantizeLinear", [source.input[0], *names], [own], name=f"{own}_Dequantize", axis=1)
        graph.node.insert(list(graph.node).index(node), made)
        node.input[0] = own
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for node in [node for node in graph.node if read.isdisjoint(node.output)]:  # that kept layers alone have read
        graph.node.remove(node)


def _exact(graph: Any) -> list[str]:
    """Returns the nodes of a transformer that stay in float32: products of two activations, and sums.

    Its tokens are sums of all blocks' branches, a few channels of which are many times larger than the others: one
    scale for all would leave these few steps. Networks without such products have none.
    """
    fixed = {constant.name for constant in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul" and fixed.isdisjoint(node.input)]
    sums = [node for node in graph.node if node.op_type == "Add"] if products else []
    return [node.name for node in (*products, *sums)]


def _layers(graph: Any, exact: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Returns the nodes of each layer that 8 bits take: with the Relu or Clip that is the range of its result."""
    reads = Counter(name for node in graph.node for name in node.input)
    clips = {node.input[0]: node.name for node in graph.node if node.op_type in ("Relu", "Clip")}
    layers: dict[str, tuple[str, ...]] = {}
    for node in graph.node:
        if node.op_type in ("Conv", "MatMul") and node.name not in exact:
            clip = [clips[y] for y in node.output if y in clips and reads[y] == 1]
            name = node.name.rpartition("/")[0] or node.name
            layers[name] = (*layers.get(name, ()), node.name, *clip)
    return layers


def measured(
    calibration: Calibration,
    activation: Activation,
    before: Logits,
    after: Logits,
    thresholds: Sequence[float] | None = None,
) -> tuple[float, float]:
    """Returns the share of right answers in float32 and in int8: by the labels, or by float32's own answers."""
    labels = calibration.labels
    several = activation == "sigmoid" if labels is None else labels.ndim == 2
    exact, rough = (
        answers(of_all(logits, calibration.scored), thresholds, several=several) for logits in (before, after)
    )
    truth = exact if labels is None else (labels > 0.5 if labels.ndim == 2 else labels)
    return float((exact == truth).mean()), float((rough == truth).mean())


def of_all(logits: Logits, images: UInt8[np.ndarray, "n h w c"]) -> Float32[np.ndarray, "n classes"]:
    return np.concatenate([logits(batch) for batch in batches(images)])


def answers(
    logits: Float32[np.ndarray, "n classes"], thresholds: Sequence[float] | None, *, several: bool
) -> Int[np.ndarray, " n"] | Bool[np.ndarray, "n classes"]:
    """Returns the most probable class, or where an image may have several each class's own yes or no."""
    return decide(sigmoid(logits), thresholds) if several else logits.argmax(-1)
