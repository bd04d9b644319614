"""ONNX in 8 bits, and what that costs in answers."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8

from jaxnets.answer import decide, sigmoid
from jaxnets.classifier import Classifier
from jaxnets.engine.onnx_file import require
from jaxnets.export.calibration import Calibration, batches
from jaxnets.export.check import Logits
from jaxnets.export.onnx_export import channels_first
from jaxnets.models.forward import Activation

# What runs in 8 bits; the classifier and the gates stay in float32, where they cost nothing and matter most.
_QUANTISED = ["Conv", "MatMul", "Add", "Relu", "Clip", "GlobalAveragePool", "MaxPool"]


def quantise(content: bytes, classifier: Classifier, images: UInt8[np.ndarray, "b h w c"]) -> bytes:
    """Returns the file in 8 bits: uint8 activations, int8 weights with a scale for each feature.

    Args:
        content: a float32 file of `export_onnx`.
        classifier: that it was made of.
        images: whose activations set the ranges; some hundreds of the kind that the model will see.
    """
    require("onnxruntime")
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from jaxnets.engine.opset import ask_for_least

    takes_uint8 = onnx.load_from_string(content).graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = self._read()

        def _read(self) -> Iterator[dict[str, Any]]:
            for batch in batches(images, 16):
                yield {"image": batch if takes_uint8 else channels_first(classifier, batch)}

        def get_next(self) -> dict[str, Any] | None:
            return next(self._batches, None)

    with tempfile.TemporaryDirectory() as folder:
        whole, prepared, small = (Path(folder) / f"{name}.onnx" for name in ("whole", "prepared", "small"))
        whole.write_bytes(content)
        quant_pre_process(whole, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            small,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_QUANTISED,
            nodes_to_exclude=_exact(onnx.load(prepared).graph),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        # ONNX Runtime's optimizer imports every domain that it knows, which older versions of it refuse.
        return ask_for_least(onnx.load(small)).SerializeToString()


def _exact(graph: Any) -> list[str]:
    """Returns the nodes of a transformer that stay in float32: products of two activations, and sums.

    Its tokens are sums of all blocks' branches, a few channels of which are many times larger than the others: one
    scale for all would leave these few steps. Networks without such products have none.
    """
    fixed = {constant.name for constant in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul" and fixed.isdisjoint(node.input)]
    sums = [node for node in graph.node if node.op_type == "Add"] if products else []
    return [node.name for node in (*products, *sums)]


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

    def answers(logits: Logits) -> Int[np.ndarray, " n"] | Bool[np.ndarray, "n classes"]:
        """Returns the most probable class, or where an image may have several each class's own yes or no."""
        found = np.concatenate([logits(batch) for batch in batches(calibration.scored)])
        return decide(sigmoid(found), thresholds) if several else found.argmax(-1)

    exact, rough = answers(before), answers(after)
    truth = exact if labels is None else (labels > 0.5 if labels.ndim == 2 else labels)
    return float((exact == truth).mean()), float((rough == truth).mean())
