"""ONNX in float32 or 16 bits, and what an ONNX file answers."""

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from jaxnets.answer import thresholds_of
from jaxnets.classifier import Classifier
from jaxnets.engine.onnx_file import onnx_model, require
from jaxnets.export.check import Logits

if TYPE_CHECKING:
    from jaxnets.engine.precision import GraphDtype


def export_onnx(classifier: Classifier, *, normalised_inside: bool, dtype: "GraphDtype" = "float32") -> bytes:
    """Returns the ONNX file of a classifier (`engine.onnx_file.onnx_model`)."""
    made = onnx_model(
        classifier.model,
        classifier.variables,
        classifier.preprocess,
        name=classifier.name,
        labels=classifier.labels,
        activation=classifier.activation,
        normalised_inside=normalised_inside,
        thresholds=thresholds_of(classifier),
        temperature=classifier.temperature,
        refusal=classifier.refusal,
        spread=classifier.spread,
        dtype=dtype,
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
