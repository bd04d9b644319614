"""ONNX: float32, or int8 with calibration on real images."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from jaxnets.classifier import Classifier
from jaxnets.engine.onnx_file import onnx_model, require
from jaxnets.export.check import Logits

# What runs in 8 bits; the classifier and the gates stay in float32, where they cost nothing and matter most.
_QUANTISED = ["Conv", "Add", "Relu", "Clip", "GlobalAveragePool", "MaxPool"]


def export_onnx(classifier: Classifier, *, normalised_inside: bool) -> bytes:
    """Returns the ONNX file of a classifier (`engine.onnx_file.onnx_model`)."""
    made = onnx_model(
        classifier.model,
        classifier.variables,
        classifier.preprocess,
        name=classifier.name,
        labels=classifier.labels,
        activation=classifier.activation,
        normalised_inside=normalised_inside,
    )
    return made.SerializeToString()


def onnx_logits(content: bytes, classifier: Classifier) -> Logits:
    """Returns the logits of an ONNX file's bytes by ONNX Runtime, for uint8 images."""
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    takes_uint8 = session.get_inputs()[0].type == "tensor(uint8)"

    def logits(images: UInt8[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b classes"]:
        return session.run(None, {"image": images if takes_uint8 else channels_first(classifier, images)})[0]

    return logits


def channels_first(classifier: Classifier, images: UInt8[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b c h w"]:
    """Returns the images as a graph without preprocessing wants them."""
    x = np.asarray(classifier.preprocess.normalise(jnp.asarray(images), np.float32))
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


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

    takes_uint8 = onnx.load_from_string(content).graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = self._read()

        def _read(self) -> Iterator[dict[str, Any]]:
            for start in range(0, len(images), 16):
                part = images[start : start + 16]
                yield {"image": part if takes_uint8 else channels_first(classifier, part)}

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
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return small.read_bytes()
