"""StableHLO through jax.export: one file for CPU, CUDA and TPU, read back without the model's code."""

from typing import Any

import jax
import numpy as np
from jax import export

from jaxnets.classifier import Classifier
from jaxnets.export.check import Logits
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.forward import forward

PLATFORMS = ("cpu", "cuda", "tpu")


def export_stablehlo(classifier: Classifier) -> bytes:
    """Returns the serialised program, its weights inside: uint8 `[b, h, w, c]` → float32 logits `[b, classes]`.

    The temperature of a calibrated classifier has divided them: their
    activation gives the probabilities that it answers with.

    `jax.export.deserialize(content).call(images)` runs it, for any batch.
    """
    model, preprocess = classifier.model.clone(dtype=np.float32), classifier.preprocess

    def logits(images: jax.Array) -> Any:
        found = forward(model, preprocess, classifier.variables, images)
        return found if classifier.temperature is None else found / classifier.temperature

    (batch,) = export.symbolic_shape("b")
    shape = (batch, preprocess.height, preprocess.width, preprocess.channels)
    with plain_convolutions():
        made = export.export(jax.jit(logits), platforms=PLATFORMS)(jax.ShapeDtypeStruct(shape, np.uint8))
    return bytes(made.serialize())


def stablehlo_logits(content: bytes) -> Logits:
    """Returns the logits of a serialised program, for uint8 images."""
    program = export.deserialize(bytearray(content))
    return lambda images: np.asarray(program.call(images))
